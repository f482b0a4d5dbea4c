{{- define "prokos.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "prokos.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "prokos.name" .) }}
{{- end }}

{{- define "prokos.selector" -}}
app.kubernetes.io/name: prokos-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "prokos.labels" -}}
{{ include "prokos.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: prokos
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "prokos.image" -}}
{{- $image := index . 0 }}{{ $root := index . 1 -}}
{{ printf "%s:%s" $image.repository ($image.tag | default $root.Chart.AppVersion) }}
{{- end }}

{{/* What the operator may do in a namespace that it watches. */}}
{{- define "prokos.rules" -}}
- apiGroups: [prokos.io]
  resources: [prokoses, taskexecutors, processdefinitions]
  verbs: [get, list, watch, patch]
- apiGroups: [prokos.io]
  resources: [taskroutes]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [prokos.io]
  resources: [prokoses/status, taskexecutors/status, processdefinitions/status, taskroutes/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [configmaps, services, serviceaccounts]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [list, create, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, create, update, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, create, update, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, create, update, patch, delete]
{{- if .Values.engines.helm }}
# Helm keeps its releases in Secrets, and Camunda's chart makes the rest.
- apiGroups: [""]
  resources: [secrets]
  verbs: [list, watch, create, update, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, create, update, patch, delete]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [get, list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list, create, update, patch, delete]
{{- end }}
{{- end }}
