{{- define "prokos-crds.labels" -}}
{{- $labels := dict
  "app.kubernetes.io/name" .Chart.Name
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/part-of" "prokos"
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version)
-}}
{{- toYaml (merge $labels .Values.labels) }}
{{- end }}

{{- define "prokos-crds.annotations" -}}
{{- $annotations := ternary (dict "helm.sh/resource-policy" "keep") dict .Values.keep -}}
{{- with merge $annotations .Values.annotations }}{{ toYaml . }}{{ end }}
{{- end }}
