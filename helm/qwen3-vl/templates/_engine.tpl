{{/* One engine's pod: for a Deployment, and for leader and workers of a LeaderWorkerSet. */}}

{{/* Folder of the checkpoint below /models, from its address: the last part, without a revision. */}}
{{- define "engine.source" -}}
{{ .weights.source | default (printf "hf://%s" .facts.model) }}
{{- end }}
{{- define "engine.folder" -}}
/models/{{ regexReplaceAll "@.*$" (include "engine.source" . | trimSuffix "/" | base) "" | lower }}
{{- end }}

{{/* What `serving run` gets for --model; empty: the profile's own. */}}
{{- define "engine.model" -}}
{{- if .weights.fetch -}}
{{ include "engine.folder" . }}/current
{{- else -}}
{{ .weights.model }}
{{- end }}
{{- end }}

{{/* Whether the pod has the volume of weights at all. */}}
{{- define "engine.hasWeights" -}}
{{- if or .weights.fetch (hasPrefix "/models" .weights.model) }}true{{ end }}
{{- end }}

{{/* (list $ pool-name pool role): role is "" for an engine on one node, else leader or worker. */}}
{{- define "engine.args" -}}
{{- $pool := index . 2 -}}
{{- $role := index . 3 -}}
{{- $size := $pool.leaderWorker.size | toString -}}
{{- $args := list "run" "--profile" $pool.profile -}}
{{- with include "engine.model" $pool }}{{ $args = concat $args (list "--model" .) }}{{ end -}}
{{- $args = concat $args (list "--host" "0.0.0.0" "--port" "8000") -}}
{{- if $role }}{{ $args = append $args "--no-check" }}{{ end -}}
{{- if eq $role "worker" }}{{ $args = append $args "--no-report" }}{{ end -}}
{{- $args = concat $args (list "--" "--shutdown-timeout" (toString $pool.drainSeconds)) -}}
{{- if $role -}}
{{- $args = concat $args (list "--pipeline-parallel-size" $size "--nnodes" $size "--master-addr" "$(LWS_LEADER_ADDRESS)") -}}
{{- $args = concat $args (ternary (list "--node-rank" "0") (list "--node-rank" "$(LWS_WORKER_INDEX)" "--headless") (eq $role "leader")) -}}
{{- end -}}
{{ concat $args $pool.extraArgs | toYaml }}
{{- end }}

{{/* (list $ pool-name pool role) */}}
{{- define "engine.template" -}}
{{- $top := index . 0 -}}
{{- $name := index . 1 -}}
{{- $pool := index . 2 -}}
{{- $role := index . 3 -}}
{{- $component := list $top "engine" $name -}}
{{- $gpus := int $pool.facts.gpus -}}
{{- $shared := include "secret.shared" $top -}}
metadata:
  labels: {{- include "selector" $component | nindent 4 }}
  {{- with $pool.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "pod.base" (list $top (printf "engine-%s" $name) 2000 0) | nindent 2 }}
  {{- with include "pod.placement" $pool | trim }}{{ nindent 2 . }}{{ end }}
  terminationGracePeriodSeconds: {{ $pool.terminationGracePeriodSeconds | default $pool.neededGraceSeconds }}
  {{- if not $role }}
  {{- include "pod.spread" $component | nindent 2 }}
  {{- end }}
  {{- with $pool.gpu.products }}
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
          - matchExpressions:
              - {key: nvidia.com/gpu.product, operator: In, values: {{ toJson . }}}
  {{- end }}
  {{- if $pool.weights.fetch }}
  initContainers:
    - name: fetch
      image: {{ include "image" $pool.image }}
      imagePullPolicy: {{ $pool.image.pullPolicy }}
      {{- include "pod.container" $top | nindent 6 }}
      command: [python3, -m, serving]
      args:
        - fetch
        - --from
        - {{ include "engine.source" $pool | toYaml }}
        - --to
        - {{ include "engine.folder" $pool | toYaml }}
        - --keep
        - {{ $pool.weights.keep | quote }}
        {{- if $pool.weights.staleOk }}
        - --stale-ok
        {{- end }}
      {{- with $pool.weights.env }}
      env: {{- include "env" . | nindent 8 }}
      {{- end }}
      {{- with $pool.weights.credentialsSecret }}
      envFrom:
        - secretRef: {name: {{ . | quote }}}
      {{- end }}
      resources:
        requests: {cpu: "1", memory: 1Gi}
        limits: {cpu: "4", memory: 4Gi}
      volumeMounts:
        - {name: weights, mountPath: /models}
        - {name: home, mountPath: /home/serving}
        - {name: cache, mountPath: /cache}
        - {name: tmp, mountPath: /tmp}
  {{- end }}
  containers:
    - name: engine
      image: {{ include "image" $pool.image }}
      imagePullPolicy: {{ $pool.image.pullPolicy }}
      {{- include "pod.container" $top | nindent 6 }}
      command: [python3, -m, serving]
      args: {{- include "engine.args" . | nindent 8 }}
      env:
        {{- with include "env" $pool.env | trim }}{{ nindent 8 . }}{{ end }}
        {{- include "env.secret" (list $shared "engine-api-key" "VLLM_API_KEY") | nindent 8 }}
      {{- if and (not $pool.weights.fetch) $pool.weights.credentialsSecret }}
      envFrom:
        - secretRef: {name: {{ $pool.weights.credentialsSecret | quote }}}
      {{- end }}
      {{- if ne $role "worker" }}
      ports:
        - {name: http, containerPort: 8000, protocol: TCP}
      lifecycle: {{- include "pod.preStop" $top | nindent 8 }}
      {{- /* Ready is who has generated a token. Later a long queue must neither take it out nor restart it: /health. */}}
      startupProbe:
        exec: {command: [python3, -m, serving, ready]}
        periodSeconds: 10
        timeoutSeconds: 10
        failureThreshold: 120
      readinessProbe:
        httpGet: {path: /health, port: http}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 3
      livenessProbe:
        httpGet: {path: /health, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      {{- end }}
      {{- $resources := deepCopy $pool.resources }}
      {{- if $gpus }}
      {{- $_ := set $resources "limits" (merge (dict $pool.gpu.resource (toString $gpus)) ($resources.limits | default dict)) }}
      {{- end }}
      resources: {{- toYaml $resources | nindent 8 }}
      volumeMounts:
        {{- if include "engine.hasWeights" $pool }}
        - {name: weights, mountPath: /models, readOnly: true}
        {{- end }}
        - {name: cache, mountPath: /cache}
        - {name: home, mountPath: /home/serving}
        - {name: shm, mountPath: /dev/shm}
        - {name: tmp, mountPath: /tmp}
  volumes:
    {{- if include "engine.hasWeights" $pool }}
    {{- include "engine.volume" (list $top $name "weights" $pool.weights.volume) | nindent 4 }}
    {{- end }}
    {{- include "engine.volume" (list $top $name "cache" $pool.compileCache.volume) | nindent 4 }}
    - name: home
      emptyDir: {sizeLimit: 1Gi}
    - name: shm
      {{- $size := mul (regexFind "^[0-9]+" $pool.shmPerGpu) (max 1 $gpus) | int }}
      {{- $unit := regexFind "[A-Za-z]+$" $pool.shmPerGpu }}
      emptyDir: {medium: Memory, sizeLimit: {{ if eq $unit "Mi" }}{{ include "mebibytes" $size }}{{ else }}{{ $size }}{{ $unit }}{{ end }}}
    - name: tmp
      emptyDir: {sizeLimit: 8Gi}
{{- end }}

{{/* (list $ pool-name volume-name volume) */}}
{{- define "engine.volume" -}}
{{- $volume := index . 3 -}}
- name: {{ index . 2 }}
{{- if eq $volume.kind "emptyDir" }}
  emptyDir: {sizeLimit: {{ $volume.size }}}
{{- else }}
  persistentVolumeClaim:
    claimName: {{ if eq $volume.kind "existingClaim" }}{{ $volume.existingClaim | toYaml }}{{ else }}{{ include "fullname" (index . 0) }}-engine-{{ index . 1 }}-{{ index . 2 }}{{ end }}
{{- end }}
{{- end }}
