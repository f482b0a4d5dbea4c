{{- define "camunda-engine.name" -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* The name that the gateway's Service has in Camunda's own chart, so that clients need not care which it is. */}}
{{- define "camunda-engine.gateway" -}}
{{- $base := contains "zeebe" .Release.Name | ternary .Release.Name (printf "%s-zeebe" .Release.Name) }}
{{- printf "%s-gateway" ($base | trunc 63 | trimSuffix "-") }}
{{- end }}

{{- define "camunda-engine.selector" -}}
app.kubernetes.io/name: camunda-engine
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: broker
{{- end }}

{{- define "camunda-engine.labels" -}}
{{ include "camunda-engine.selector" . }}
app.kubernetes.io/part-of: camunda
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
