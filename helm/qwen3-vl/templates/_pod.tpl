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

{{/* Replicas of a workload that an autoscaler has: none are sent. But where Helm itself still owns the field, because the
     autoscaler is new or has not yet had a reason to act, leaving it out would make it 1, the API server's default: so
     what is there is sent again until somebody writes the scale. (list $ apiVersion kind name) */}}
{{- define "pod.replicasKept" -}}
{{- $found := lookup (index . 1) (index . 2) (index . 0).Release.Namespace (index . 3) | default dict -}}
{{- $ours := false -}}
{{- $scaled := false -}}
{{- range (dig "metadata" "managedFields" list $found) -}}
{{- if hasKey (dig "fieldsV1" "f:spec" dict .) "f:replicas" -}}
{{- if eq (toString .subresource) "scale" }}{{ $scaled = true }}{{ else }}{{ $ours = true }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $now := dig "spec" "replicas" 1 $found | int -}}
{{- if and $ours (not $scaled) (gt $now 1) }}{{ $now }}{{ end -}}
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
