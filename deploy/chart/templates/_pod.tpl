{{/* A value as YAML, after its templates are rendered. Arguments: value, root. */}}
{{- define "corecached.render" -}}
{{- if kindIs "string" .value }}{{ tpl .value .root }}{{ else }}{{ tpl (toYaml .value) .root }}{{ end }}
{{- end }}

{{/* Annotations of a pod. Arguments: own, root. */}}
{{- define "corecached.podAnnotations" -}}
{{- $annotations := merge (dict) .own .root.Values.commonAnnotations }}
{{- if .root.Values.metrics.enabled }}{{ $annotations = merge (dict) $annotations .root.Values.metrics.podAnnotations }}{{ end }}
{{- with $annotations }}{{ tpl (toYaml .) $.root }}{{ end }}
{{- end }}

{{- define "corecached.adminListen" -}}
{{- $address := .Values.metrics.listenAddress }}
{{- if contains ":" $address }}[{{ $address | trimPrefix "[" | trimSuffix "]" }}]{{ else }}{{ $address }}{{ end }}:{{ int .Values.containerPorts.admin }}
{{- end }}

{{/* Security context of a pod. Arguments: uid, gid, root. */}}
{{- define "corecached.podSecurity" -}}
{{- $own := .root.Values.podSecurityContext }}
{{- if $own.enabled -}}
runAsNonRoot: true
runAsUser: {{ int .uid }}
runAsGroup: {{ int .gid }}
fsGroup: {{ int $own.fsGroup }}
{{- end }}
{{- include "corecached.seccomp" .root }}
{{- end }}

{{/* Environment of a container. Arguments: vars, configMap, secret, root. */}}
{{- define "corecached.env" -}}
{{- with .vars -}}
env:
  {{- include "corecached.render" (dict "value" . "root" $.root) | nindent 2 }}
{{- end }}
{{- if or .configMap .secret }}
envFrom:
  {{- with .configMap }}
  - configMapRef:
      name: {{ tpl . $.root }}
  {{- end }}
  {{- with .secret }}
  - secretRef:
      name: {{ tpl . $.root }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Probes: startup by a request of the healthcheck command, readiness and liveness by the admin pages. Arguments: port,
     root, and isCache, which enables the custom probes of the cache. */}}
{{- define "corecached.probes" -}}
{{- $values := .root.Values }}
{{- if and .isCache $values.customStartupProbe }}
startupProbe:
  {{- include "corecached.render" (dict "value" $values.customStartupProbe "root" .root) | nindent 2 }}
{{- else if $values.startupProbe.enabled }}
startupProbe:
  exec:
    command: [/usr/local/bin/corecached, healthcheck, "127.0.0.1:{{ int .port }}"{{ if and .isCache $values.tls.enabled }}, --enable-ssl{{ end }}{{ if $values.auth.enabled }}, --auth-file=/etc/corecached/users{{ end }}]
  {{- omit $values.startupProbe "enabled" | toYaml | nindent 2 }}
{{- end }}
{{- if and .isCache $values.customReadinessProbe }}
readinessProbe:
  {{- include "corecached.render" (dict "value" $values.customReadinessProbe "root" .root) | nindent 2 }}
{{- else if $values.readinessProbe.enabled }}
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
  {{- omit $values.readinessProbe "enabled" | toYaml | nindent 2 }}
{{- end }}
{{- if and .isCache $values.customLivenessProbe }}
livenessProbe:
  {{- include "corecached.render" (dict "value" $values.customLivenessProbe "root" .root) | nindent 2 }}
{{- else if $values.livenessProbe.enabled }}
livenessProbe:
  httpGet:
    path: /healthz
    port: admin
  {{- omit $values.livenessProbe "enabled" | toYaml | nindent 2 }}
{{- end }}
{{- end }}

{{/* Lifecycle hook that drains. Arguments: admin, seconds. */}}
{{- define "corecached.drain" -}}
preStop:
  exec:
    command: [/usr/local/bin/corecached, drain, {{ .admin | quote }}, "--wait-ms={{ mul 1000 (int .seconds) }}"]
{{- end }}

{{- define "corecached.nodeAffinity" -}}
{{- if .type }}
{{- $expressions := list (dict "key" .key "operator" "In" "values" .values) }}
{{- if eq .type "hard" }}
requiredDuringSchedulingIgnoredDuringExecution:
  nodeSelectorTerms:
    - matchExpressions:
        {{- toYaml $expressions | nindent 8 }}
{{- else }}
preferredDuringSchedulingIgnoredDuringExecution:
  - weight: 1
    preference:
      matchExpressions:
        {{- toYaml $expressions | nindent 8 }}
{{- end }}
{{- end }}
{{- end }}
