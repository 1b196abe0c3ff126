{{/* Names, labels, images: what several components need. Nothing here decides anything. */}}

{{- define "name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 32 | trimSuffix "-" }}
{{- end }}

{{/* At most 32 characters: the longest name made of it, `-engine-` and a pool's 20, then still fits a Service (63). A
     Service's name begins with a letter and has no dots, a release's may. Whatever is changed gets a part of its hash:
     two releases never share a name. */}}
{{- define "fullname" -}}
{{- $name := include "name" . -}}
{{- $whole := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $fits := and (le (len $whole) 32) (regexMatch "^[a-z][-a-z0-9]*$" $whole) -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else if $fits -}}
{{ $whole }}
{{- else -}}
{{ regexReplaceAll "^([0-9])" (replace "." "-" $whole) "r$1" | trunc 26 | trimSuffix "-" }}-{{ sha256sum $whole | trunc 5 }}
{{- end }}
{{- end }}

{{/* Text as the value of a label: at most 63 characters, no `+` of a version's build. */}}
{{- define "label" -}}
{{ regexReplaceAll "[^A-Za-z0-9]+$" (regexReplaceAll "[^-A-Za-z0-9_.]" . "_" | trunc 63) "" | quote }}
{{- end }}

{{/* What selects the release's pods. Never to be changed: a Deployment's selector is immutable. */}}
{{- define "selector.release" -}}
app.kubernetes.io/name: {{ include "name" . | toYaml }}
app.kubernetes.io/instance: {{ .Release.Name | toYaml }}
{{- end }}

{{/* (list $ component [pool]) */}}
{{- define "selector" -}}
{{ include "selector.release" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- if gt (len .) 2 }}{{ with index . 2 }}
qwen3-vl/pool: {{ . | toYaml }}
{{- end }}{{ end }}
{{- end }}

{{/* Not for pods: a label that changes with the chart's version would restart every engine. (list $ component [pool]) */}}
{{- define "labels" -}}
{{- $top := index . 0 -}}
{{ include "selector" . }}
app.kubernetes.io/version: {{ include "label" $top.Chart.AppVersion }}
app.kubernetes.io/managed-by: {{ $top.Release.Service }}
helm.sh/chart: {{ include "label" (printf "%s-%s" $top.Chart.Name $top.Chart.Version) }}
{{- end }}

{{/* (list $ component [pool [suffix]]): name, namespace and labels of an object. */}}
{{- define "metadata" -}}
{{- $top := index . 0 -}}
name: {{ include "fullname" $top }}-{{ slice . 1 | compact | join "-" }}
namespace: {{ $top.Release.Namespace | toYaml }}
labels: {{- include "labels" . | nindent 2 }}
{{- end }}

{{- define "image" -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end }}

{{- define "imagePullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . | toYaml }}
{{- end }}
{{- end }}
{{- end }}

{{/* A value as an environment variable has it. Helm reads every number as a float, and would write 5e+07. */}}
{{- define "text" -}}
{{- if kindIs "slice" . -}}
{{ join "," . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end }}
{{- end }}

{{/* Variables from a map, in the order of their names: no name can come twice. */}}
{{- define "env" -}}
{{- range $name := keys . | sortAlpha }}
- name: {{ $name | toYaml }}
  value: {{ include "text" (get $ $name) | quote }}
{{- end }}
{{- end }}

{{/* (list secret key variable) */}}
{{- define "env.secret" -}}
- name: {{ index . 2 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 0 | toYaml }}
      key: {{ index . 1 | toYaml }}
{{- end }}

{{- define "secret.keys" -}}
{{ .Values.keys.existingSecret | default (printf "%s-keys" (include "fullname" .)) }}
{{- end }}

{{- define "secret.shared" -}}
{{ .Values.secrets.existingSecret | default (printf "%s-shared" (include "fullname" .)) }}
{{- end }}

{{/* The profile's facts, generated from serving/profiles: {gpus, requests, targetInFlight, model, …}. (list $ profile) */}}
{{- define "profile" -}}
{{- $facts := (index . 0).Files.Get "files/profiles.json" | fromJson -}}
{{ get $facts.profiles (index . 1) | default dict | toJson }}
{{- end }}

{{/* A pool's values: `engine` with the pool's own over it. (list $ name) */}}
{{- define "pool" -}}
{{- $top := index . 0 -}}
{{- $pool := mergeOverwrite (deepCopy $top.Values.engine) (deepCopy (get $top.Values.pools (index . 1))) -}}
{{- $drain := $top.Values.drain -}}
{{- $seconds := int ($pool.drainSeconds | default $drain.seconds) -}}
{{- $_ := set $pool "drainSeconds" $seconds -}}
{{- $_ := set $pool "neededGraceSeconds" (add $drain.preStopSeconds $seconds $drain.marginSeconds | int) -}}
{{- $_ := set $pool "facts" (include "profile" (list $top $pool.profile) | fromJson) -}}
{{ $pool | toJson }}
{{- end }}

{{/* A quantity as the API server writes it: 1Gi, never 1024Mi. */}}
{{- define "mebibytes" -}}
{{ if mod . 1024 }}{{ . }}Mi{{ else }}{{ div . 1024 }}Gi{{ end }}
{{- end }}
