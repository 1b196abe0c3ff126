{{/* The gateway's environment: its settings, then what the chart knows better, then secrets. Its own pause before it drains
     is off: preStop is that pause, as for the engines. */}}
{{- define "gateway.env" -}}
{{- $env := dict -}}
{{- range $name, $value := .Values.gateway.settings -}}
{{- $_ := set $env (printf "GATEWAY_%s" (upper $name)) $value -}}
{{- end -}}
{{- $engines := list -}}
{{- range $pool := keys .Values.pools | sortAlpha -}}
{{- $engines = append $engines (printf "dns+http://%s-engine-%s.%s.svc:8000" (include "fullname" $) $pool $.Release.Namespace) -}}
{{- end -}}
{{- $fixed := dict
  "GATEWAY_HOST" "0.0.0.0"
  "GATEWAY_PORT" 8080
  "GATEWAY_METRICS_PORT" 9090
  "GATEWAY_ENGINES" (join "," $engines)
  "GATEWAY_KEYS_FILE" "/etc/gateway/keys/keys.json"
  "GATEWAY_TRUSTED_PROXIES" (join "," .Values.exposure.trustedProxies)
  "GATEWAY_DRAIN_DELAY_S" 0
  "GATEWAY_DRAIN_TIMEOUT_S" .Values.drain.seconds
-}}
{{- $shared := include "secret.shared" . -}}
{{- $computed := dict "GATEWAY_ENGINE_MAX_IN_FLIGHT" (include "gateway.maxInFlight" .) -}}
{{ include "env" (merge $fixed $env $computed .Values.gateway.env) | trim }}
{{ include "env.secret" (list $shared "tenant-secret" "GATEWAY_TENANT_SECRET") }}
{{ include "env.secret" (list $shared "engine-api-key" "GATEWAY_ENGINE_API_KEY") }}
{{- if eq .Values.redis.mode "bundled" }}
{{ include "env.secret" (list $shared "redis-password" "REDIS_PASSWORD") }}
- name: GATEWAY_REDIS_URL
  value: redis://:$(REDIS_PASSWORD)@{{ include "fullname" . }}-redis:6379/0
{{- else if eq .Values.redis.mode "external" }}
{{ include "env.secret" (list .Values.redis.urlSecret.name .Values.redis.urlSecret.key "GATEWAY_REDIS_URL") }}
{{- end }}
{{- end }}

{{/* What the engine with the most room runs at once, shared by all workers of the fewest gateways: what is more waits
     here, where class, fairness and deadline order it, and no engine is kept below what it can. */}}
{{- define "gateway.maxInFlight" -}}
{{- $most := 1 -}}
{{- range $name := keys .Values.pools -}}
{{- $pool := include "pool" (list $ $name) | fromJson -}}
{{- $most = max $most (int $pool.facts.requests) -}}
{{- end -}}
{{- $scaling := .Values.gateway.autoscaling -}}
{{- $gateways := ternary .Values.gateway.replicas $scaling.minReplicas (eq $scaling.kind "none") | int -}}
{{- $sharing := mul $gateways (int (.Values.gateway.settings.workers | default 1)) -}}
{{ div (sub (add $most $sharing) 1) $sharing }}
{{- end }}
