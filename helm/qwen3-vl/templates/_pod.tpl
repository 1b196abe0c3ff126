{{/* What every pod has: Pod Security "restricted", no API token, no variables of other Services. */}}

{{/* (list $ service-account user group) */}}
{{- define "pod.base" -}}
{{- $top := index . 0 -}}
serviceAccountName: {{ include "fullname" $top }}-{{ index . 1 }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ index . 2 }}
  runAsGroup: {{ index . 3 }}
  fsGroup: {{ index . 2 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- include "imagePullSecrets" $top }}
{{- end }}

{{- define "pod.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Over zones and nodes, as far as there are any: one that fails takes the fewest pods with it. */}}
{{- define "pod.spread" -}}
topologySpreadConstraints:
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}

{{- define "pod.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | toYaml }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . | toYaml }}
{{- end }}
{{- end }}

{{/* `sleep` in the image: the kubelet's own sleep action is younger than Kubernetes 1.29. */}}
{{- define "pod.preStop" -}}
preStop:
  exec:
    command: [sleep, {{ .Values.drain.preStopSeconds | quote }}]
{{- end }}
