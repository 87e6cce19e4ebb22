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
