{{/* Names: RELEASE-memcached and RELEASE-mcrouter, or RELEASE if it contains the word, as in the original charts. */}}
{{- define "corecached.named" -}}
{{- if contains .word .root.Release.Name }}{{ .root.Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .root.Release.Name .word | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}
{{- define "corecached.cache.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}{{ include "corecached.named" (dict "root" . "word" (.Values.nameOverride | default "memcached")) }}{{ end }}
{{- end }}
{{- define "corecached.proxy.fullname" -}}
{{- if .Values.fullnameOverride }}{{ printf "%s-mcrouter" (.Values.fullnameOverride | trunc 52 | trimSuffix "-") }}
{{- else }}
{{- $name := include "corecached.named" (dict "root" . "word" "mcrouter") }}
{{- $name }}{{ if eq $name (include "corecached.cache.fullname" .) }}-mcrouter{{ end }}
{{- end }}
{{- end }}

{{/* The values of stable/mcrouter, merged over their defaults. None of them is in values.yaml, because the presence of one
     enables the proxy. */}}
{{- define "corecached.old" -}}
{{- $defaults := dict
    "memcached" (dict "enabled" true)
    "controller" "daemonset"
    "daemonset" (dict "hostPort" 5000)
    "statefulset" (dict "replicas" 1 "antiAffinity" "hard")
    "mcrouterCommandParams" (dict "port" 5000 "configFile" "") }}
{{- $given := dict }}
{{- range $name, $_ := $defaults }}
{{- if and (hasKey $.Values $name) (not (kindIs "invalid" (get $.Values $name))) }}{{ $_ := set $given $name (get $.Values $name) }}{{ end }}
{{- end }}
{{- mergeOverwrite $defaults (deepCopy $given) | toJson }}
{{- end }}

{{/* Each of these returns "true" or "". */}}
{{- define "corecached.proxy.given" -}}
{{- range list "memcached" "controller" "daemonset" "statefulset" "mcrouterCommandParams" }}
{{- if and (hasKey $.Values .) (not (kindIs "invalid" (get $.Values .))) }}true {{ end }}
{{- end }}
{{- end }}
{{- define "corecached.proxy.enabled" -}}
{{- $asked := toString .Values.mcrouter.enabled }}
{{- if eq $asked "auto" }}{{ if include "corecached.proxy.given" . }}true{{ end }}
{{- else if eq $asked "true" }}true{{ end }}
{{- end }}
{{- define "corecached.cache.enabled" -}}
{{- if not (include "corecached.proxy.enabled" .) }}true
{{- else if (include "corecached.old" . | fromJson).memcached.enabled }}true{{ end }}
{{- end }}
{{- define "corecached.cache.stateful" -}}
{{- if or (eq .Values.architecture "high-availability") (include "corecached.proxy.enabled" .) }}true{{ end }}
{{- end }}
{{- define "corecached.cache.headless" -}}
{{- $s := .Values.service }}
{{- if or (include "corecached.cache.stateful" .) (and (eq $s.type "ClusterIP") (has $s.clusterIP (list "" "None"))) }}true{{ end }}
{{- end }}
{{- define "corecached.cache.autoscales" -}}
{{- if and .Values.autoscaling.enabled (include "corecached.cache.stateful" .) }}true{{ end }}
{{- end }}

{{/* Number of cache pods without autoscaling. */}}
{{- define "corecached.cache.replicasWanted" -}}
{{- $behind := .Values.memcached | default dict }}
{{- if hasKey $behind "replicaCount" }}{{ $behind.replicaCount | int }}
{{- else if not (kindIs "invalid" .Values.replicaCount) }}{{ .Values.replicaCount | int }}
{{- else }}{{ include "corecached.cache.stateful" . | empty | ternary 1 3 }}{{ end }}
{{- end }}
{{/* The number for `replicas`; empty if it would undo the work of the autoscaler. If an upgrade omitted the field, helm's
     merge would reset it to 1, so an upgrade with access to the cluster repeats the current number. */}}
{{- define "corecached.cache.replicas" -}}
{{- if include "corecached.cache.autoscales" . }}
{{- if .Values.autoscaling.renderReplicas }}
{{- $running := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "corecached.cache.fullname" .) }}
{{- if $running }}{{ $running.spec.replicas }}{{ else if .Release.IsInstall }}{{ .Values.autoscaling.minReplicas }}{{ end }}
{{- end }}
{{- else }}{{ include "corecached.cache.replicasWanted" . }}{{ end }}
{{- end }}
{{- define "corecached.cache.replicasMax" -}}
{{- if include "corecached.cache.autoscales" . }}{{ .Values.autoscaling.maxReplicas }}
{{- else }}{{ include "corecached.cache.replicasWanted" . }}{{ end }}
{{- end }}

{{/* Labels. `part` is memcached or mcrouter, `fullname` the name of its objects. */}}
{{- define "corecached.selector" -}}
app: {{ .fullname }}
app.kubernetes.io/name: {{ .part }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}
{{/* Labels of a pod. They must not contain the version of the chart, since a new version would restart all caches. */}}
{{- define "corecached.podLabels" -}}
{{ include "corecached.selector" . }}
app.kubernetes.io/component: {{ get (dict "mcrouter" "proxy" "seccomp" "seccomp" "memcached" "cache") .part }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- define "corecached.labels" -}}
{{ include "corecached.podLabels" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}
{{- define "corecached.cache" -}}
{{- dict "part" "memcached" "fullname" (include "corecached.cache.fullname" .) | toJson }}
{{- end }}
{{- define "corecached.installer" -}}
{{- dict "part" "seccomp" "fullname" (printf "%s-seccomp" (include "corecached.cache.fullname" .)) | toJson }}
{{- end }}
{{- define "corecached.proxy" -}}
{{- dict "part" "mcrouter" "fullname" (include "corecached.proxy.fullname" .) | toJson }}
{{- end }}
{{/* Metadata of an object. Arguments: part, fullname, root; optional: name, annotations, namespace. */}}
{{- define "corecached.metadata" -}}
name: {{ .name | default .fullname }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "corecached.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "corecached.image" -}}
{{- $image := .Values.image }}
{{- $registry := .Values.global.imageRegistry | default $image.registry }}
{{- with $registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}
{{- define "corecached.pullSecrets" -}}
{{- $names := list }}
{{- range concat .Values.global.imagePullSecrets .Values.image.pullSecrets }}
{{- $names = append $names (dict "name" (kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") .)) }}
{{- end }}
{{- with $names | uniq }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- define "corecached.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "corecached.cache.fullname" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "corecached.seccomp" -}}
{{- $mode := .Values.seccomp.mode }}
{{- if has $mode (list "auto" "runtimeDefault") }}
seccompProfile:
  type: RuntimeDefault
{{- else if eq $mode "localhost" }}
seccompProfile:
  type: Localhost
  localhostProfile: {{ .Values.seccomp.localhostProfile | quote }}
{{- else if eq $mode "unconfined" }}
seccompProfile:
  type: Unconfined
{{- end }}
{{- end }}

{{- define "corecached.presets" -}}
{{- dict
  "nano" (list "100m" "192Mi") "micro" (list "250m" "384Mi") "small" (list "500m" "768Mi") "medium" (list "500m" "1536Mi")
  "large" (list "1" "3Gi") "xlarge" (list "1" "6Gi") "2xlarge" (list "1" "12Gi") "none" (list) | toJson }}
{{- end }}
{{/* Resources of a cache pod. The memory request equals the limit, because a cache uses all of it. */}}
{{- define "corecached.cache.resources" -}}
{{- $old := (include "corecached.old" . | fromJson).memcached.resources }}
{{- if .Values.guaranteedQoS.enabled }}
{{- $both := dict "cpu" (toString .Values.guaranteedQoS.cpus) "memory" .Values.guaranteedQoS.memory }}
{{- toYaml (dict "requests" $both "limits" $both) }}
{{- else if .Values.resources }}{{ toYaml .Values.resources }}
{{- else if $old }}{{ toYaml $old }}
{{- else }}
{{- $preset := get (include "corecached.presets" . | fromJson) .Values.resourcesPreset }}
{{- if $preset }}
{{- $memory := index $preset 1 }}
{{- toYaml (dict "requests" (dict "cpu" (index $preset 0) "memory" $memory) "limits" (dict "memory" $memory)) }}
{{- else }}{}{{ end }}
{{- end }}
{{- end }}

{{/* One term of pod affinity. Arguments: labels, topology. */}}
{{- define "corecached.podAffinity" -}}
{{- if eq .how "hard" }}
requiredDuringSchedulingIgnoredDuringExecution:
  - labelSelector:
      matchLabels:
        {{- .labels | nindent 8 }}
    topologyKey: kubernetes.io/hostname
{{- else if eq .how "soft" }}
preferredDuringSchedulingIgnoredDuringExecution:
  - weight: 1
    podAffinityTerm:
      labelSelector:
        matchLabels:
          {{- .labels | nindent 10 }}
      topologyKey: kubernetes.io/hostname
{{- end }}
{{- end }}

{{/* Refuses values that contradict each other, or that would have no effect. */}}
{{- define "corecached.check" -}}
{{- if and .Values.auth.enabled (include "corecached.proxy.enabled" .) }}{{ fail "auth.enabled: the proxy shows no password to caches; say who may connect with networkPolicy.allowExternal=false instead" }}{{ end }}
{{- if and .Values.auth.enabled (not .Values.auth.existingSecret) (not (and .Values.auth.username .Values.auth.password)) }}{{ fail "auth.enabled: give auth.username and auth.password, or auth.existingSecret" }}{{ end }}
{{- if and .Values.tls.enabled (not .Values.tls.existingSecret) }}{{ fail "tls.enabled: give tls.existingSecret, a Secret with tls.crt and tls.key, and with a proxy ca.crt" }}{{ end }}
{{- if and (or .Values.tls.caCertificate .Values.tls.serverName) (not .Values.tls.enabled) }}{{ fail "tls: is not enabled, so nothing of it is used; set tls.enabled=true" }}{{ end }}
{{- if and .Values.tls.serverName (not (include "corecached.cache.authorities" .)) }}{{ fail "tls.serverName: it is not verified without a proxy; set tls.caCertificate=true, with ca.crt in tls.existingSecret" }}{{ end }}
{{- if and (include "corecached.proxy.tls" .) (not (include "corecached.proxy.tlsSecret" .)) }}{{ fail "mcrouter.tls.enabled: give mcrouter.tls.existingSecret, a Secret with ca.crt" }}{{ end }}
{{- if and (or .Values.mcrouter.tls.existingSecret .Values.mcrouter.tls.clientCertificate .Values.mcrouter.tls.serverName) (not (include "corecached.proxy.tls" .)) }}{{ fail "mcrouter.tls: is not enabled, so nothing of it is used; set mcrouter.tls.enabled=true, or tls.enabled=true with a proxy" }}{{ end }}
{{- if and .Values.seccomp.installer.enabled (ne .Values.seccomp.mode "localhost") }}{{ fail "seccomp.installer.enabled: the profile would not be used; set seccomp.mode=localhost as well" }}{{ end }}
{{- if .Values.persistence.enabled }}{{ fail "persistence.enabled: the cache keeps nothing over a restart; remove it" }}{{ end }}
{{- if and .Values.autoscaling.enabled (not (include "corecached.cache.stateful" .)) }}{{ fail "autoscaling.enabled: needs architecture=high-availability" }}{{ end }}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) }}{{ fail "autoscaling.minReplicas: must not be more than autoscaling.maxReplicas" }}{{ end }}
{{- if le (int .Values.terminationGracePeriodSeconds) (int .Values.drain.seconds) }}{{ fail "terminationGracePeriodSeconds: must be more than drain.seconds, or pods are killed while they drain" }}{{ end }}
{{- if le (int .Values.mcrouter.terminationGracePeriodSeconds) (int .Values.mcrouter.drainSeconds) }}{{ fail "mcrouter.terminationGracePeriodSeconds: must be more than mcrouter.drainSeconds" }}{{ end }}
{{- if and .Values.pdb.minAvailable .Values.pdb.maxUnavailable }}{{ fail "pdb: give minAvailable or maxUnavailable, not both" }}{{ end }}
{{- if and (include "corecached.proxy.given" .) (eq (toString .Values.mcrouter.enabled) "false") }}{{ fail "mcrouter.enabled: is false, but values of the proxy are given (memcached, controller, daemonset, statefulset or mcrouterCommandParams): remove one or the other" }}{{ end }}
{{- if and (include "corecached.proxy.enabled" .) (not (include "corecached.cache.enabled" .)) (not .Values.mcrouter.config) (not (include "corecached.old" . | fromJson).mcrouterCommandParams.configFile) }}{{ fail "memcached.enabled: is false, so say where the proxy sends to: mcrouter.config or mcrouterCommandParams.configFile" }}{{ end }}
{{- if and .Values.mcrouter.config (include "corecached.old" . | fromJson).mcrouterCommandParams.configFile }}{{ fail "mcrouter.config: give it or mcrouterCommandParams.configFile, not both" }}{{ end }}
{{- if and (include "corecached.cache.stateful" .) (ne .Values.service.type "ClusterIP") }}{{ fail "service.type: must be ClusterIP with architecture=high-availability or a proxy: the Service is headless then" }}{{ end }}
{{- if and (include "corecached.proxy.enabled" .) (include "corecached.cache.autoscales" .) (eq .Values.mcrouter.discovery "static") }}{{ fail "mcrouter.discovery: must be dns with autoscaling.enabled: pods come and go" }}{{ end }}
{{- if eq (int .Values.containerSecurityContext.runAsUser) (int .Values.mcrouter.runAsUser) }}{{ fail "mcrouter.runAsUser: must differ from containerSecurityContext.runAsUser: both would share the locked memory that io_uring needs" }}{{ end }}
{{- end }}

{{/* Domain of the names of pods. The final dot makes names absolute, so that no search list is tried first. */}}
{{- define "corecached.cache.domain" -}}
{{ include "corecached.cache.fullname" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}.
{{- end }}
{{/* Not empty if the proxy uses the API server. */}}
{{- define "corecached.proxy.asksCluster" -}}
{{- if and (include "corecached.proxy.enabled" .) (eq .Values.mcrouter.discovery "endpointslices") }}yes{{ end }}
{{- end }}
{{- define "corecached.proxy.config" -}}
{{- $old := include "corecached.old" . | fromJson }}
{{- if .Values.mcrouter.config }}{{ tpl .Values.mcrouter.config . }}
{{- else if $old.mcrouterCommandParams.configFile }}
{{- .Files.Get $old.mcrouterCommandParams.configFile | required (printf "mcrouterCommandParams.configFile: %s is not in the chart's folder; put it there or use mcrouter.config" $old.mcrouterCommandParams.configFile) }}
{{- else }}
{{- $port := int .Values.service.ports.memcached }}
{{- $domain := include "corecached.cache.domain" . }}
{{- $pool := dict "servers" (list (printf "%s:%d" $domain $port)) "resolve" true }}
{{- if eq .Values.mcrouter.discovery "endpointslices" }}
{{- $_ := set $pool "endpoint_slices" (printf "%s/%s" .Release.Namespace (include "corecached.cache.fullname" .)) }}
{{- end }}
{{- if eq .Values.mcrouter.discovery "static" }}
{{- $servers := list }}
{{- range until (include "corecached.cache.replicasWanted" . | int) }}
{{- $servers = append $servers (printf "%s-%d.%s:%d" (include "corecached.cache.fullname" $) . $domain (int $.Values.containerPorts.memcached)) }}
{{- end }}
{{- $pool = dict "servers" $servers }}
{{- end }}
{{- if .Values.tls.enabled }}
{{- $pool = merge $pool (dict "use_ssl" true) }}
{{- end }}
{{- with .Values.mcrouter.warmResize }}
{{- if .windowMs }}
{{- if ge (int .graceMs) (int .windowMs) }}{{ fail "mcrouter.warmResize.graceMs: must be less than mcrouter.warmResize.windowMs" }}{{ end }}
{{- $pool = merge $pool (dict "warm_resize" (dict "window_ms" (int .windowMs) "grace_ms" (int .graceMs))) }}
{{- end }}
{{- end }}
{{- $route := dict "type" "PoolRoute" "pool" "A" "hash" (dict "hash_func" .Values.mcrouter.hashFunction) }}
{{- dict "pools" (dict "A" $pool) "route" $route | toPrettyJson }}
{{- end }}
{{- end }}
{{/* Not empty if the proxy connects to destinations with TLS; and the name of the Secret that it needs for this. */}}
{{- define "corecached.proxy.tls" -}}
{{- if and (include "corecached.proxy.enabled" .) (or .Values.mcrouter.tls.enabled .Values.tls.enabled) }}yes{{ end }}
{{- end }}
{{- define "corecached.proxy.tlsSecret" -}}
{{ .Values.mcrouter.tls.existingSecret | default .Values.tls.existingSecret }}
{{- end }}
{{/* Name of the Secret with ca.crt, which verifies the certificates of caches; empty if none is configured. */}}
{{- define "corecached.cache.authorities" -}}
{{- if .Values.tls.enabled }}
{{- if .Values.tls.caCertificate }}{{ .Values.tls.existingSecret }}
{{- else if include "corecached.proxy.tls" . }}{{ include "corecached.proxy.tlsSecret" . }}
{{- end }}
{{- end }}
{{- end }}
{{- define "corecached.authSecret" -}}
{{ .Values.auth.existingSecret | default (printf "%s-users" (include "corecached.cache.fullname" .)) }}
{{- end }}
