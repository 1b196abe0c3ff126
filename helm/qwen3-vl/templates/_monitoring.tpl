{{/* Prometheus matchers of this release's pods, as the PodMonitors label them. (list $ component [pool]) */}}
{{- define "monitoring.matchers" -}}
{{- $top := index . 0 -}}
namespace="{{ $top.Release.Namespace }}",app_kubernetes_io_instance="{{ $top.Release.Name }}",app_kubernetes_io_component="{{ index . 1 }}"
{{- if gt (len .) 2 }},qwen3_vl_pool="{{ index . 2 }}"{{ end }}
{{- end }}
