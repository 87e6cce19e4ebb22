{{/* Labels of every object; call with (dict "root" $ "component" "operator"). */}}
{{- define "selvage.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "selvage.selector" . }}
{{- end }}

{{/* Labels that select the pods of a component: they can never change. */}}
{{- define "selvage.selector" -}}
app.kubernetes.io/name: selvage
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of the nodes that a pod may run on; call with those of the values. The images are for Linux only. */}}
{{- define "selvage.nodeSelector" -}}
{{- toYaml (mergeOverwrite (dict "kubernetes.io/os" "linux") .) }}
{{- end }}

{{/* Security context of a container without any privileges. */}}
{{- define "selvage.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Sources of the volume with the Secrets for Prometheus; empty without any. The paths are those of the operator's arguments. */}}
{{- define "selvage.prometheusSecrets" -}}
{{- $auth := .Values.prometheus.auth }}
{{- if and $auth.bearerToken.name $auth.basic.name }}
{{- fail "set prometheus.auth.bearerToken.name or prometheus.auth.basic.name, not both: a query has one header Authorization" }}
{{- end }}
{{- with $auth.bearerToken }}
{{- if .name }}
- secret: { name: {{ .name | quote }}, optional: true, items: [{ key: {{ .key | quote }}, path: token }] }
{{- end }}
{{- end }}
{{- with $auth.basic }}
{{- if .name }}
- secret:
    name: {{ .name | quote }}
    optional: true
    items: [{ key: {{ .usernameKey | quote }}, path: username }, { key: {{ .passwordKey | quote }}, path: password }]
{{- end }}
{{- end }}
{{- with .Values.prometheus.caSecret }}
{{- if .name }}
- secret: { name: {{ .name | quote }}, optional: true, items: [{ key: {{ .key | quote }}, path: ca.crt }] }
{{- end }}
{{- end }}
{{- range $name, $secret := .Values.prometheus.secretHeaders }}
- secret:
    name: {{ $secret.name | quote }}
    optional: true
    items: [{ key: {{ $secret.key | quote }}, path: {{ printf "header-%s" (lower $name) | quote }} }]
{{- end }}
{{- end }}

{{/* Labels of an object that a program of the monitoring selects; call with "labels" beside "root" and "component". */}}
{{- define "selvage.monitoringLabels" -}}
{{ include "selvage.labels" . }}
{{- with .labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* "true" if the nodes serve HTTPS, else empty. */}}
{{- define "selvage.tls" -}}
{{- with .Values.edge.tls }}
{{- if and (eq (toString .enabled) "false") .secretNames }}
{{- fail "edge.tls.enabled=false contradicts edge.tls.secretNames: remove one of them" }}
{{- end }}
{{- if or .enabled .secretNames }}true{{ end }}
{{- end }}
{{- end }}

{{/* Ports at which the pods and, with HostPort or HostNetwork, the nodes accept requests, as JSON. */}}
{{- define "selvage.edgePorts" -}}
{{- $exposure := .Values.edge.exposure }}
{{- $isHostNetwork := eq $exposure "HostNetwork" }}
{{- $port := .Values.edge.host.port | default (ternary 8080 80 $isHostNetwork) | int }}
{{- $tlsPort := .Values.edge.host.tlsPort | default (ternary 8443 443 $isHostNetwork) | int }}
{{- if and (ne $exposure "Service") (eq $port $tlsPort) }}
{{- fail "edge.host.port and edge.host.tlsPort must differ" }}
{{- end }}
{{- if and $isHostNetwork (or (lt $port 1024) (lt $tlsPort 1024)) }}
{{- fail "edge.host.port and edge.host.tlsPort must be 1024 or higher with edge.exposure=HostNetwork: the node-shim has no privileges. Use edge.exposure=HostPort for lower ports" }}
{{- end }}
{{- if and $isHostNetwork (or (eq $port 9180) (eq $tlsPort 9180)) }}
{{- fail "edge.host.port and edge.host.tlsPort cannot be 9180 with edge.exposure=HostNetwork: the node-shim serves metrics and health there" }}
{{- end }}
{{- $own := ternary (dict "http" $port "https" $tlsPort) (dict "http" 8080 "https" 8443) $isHostNetwork }}
{{- $ports := dict "http" $own.http "https" $own.https "hostHttp" $port "hostHttps" $tlsPort }}
{{- toJson $ports }}
{{- end }}
