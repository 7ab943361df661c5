{{- /* Names and labels shared by the templates. */ -}}

{{- /* With the suffix of a pod name this is the name of a node, which may have 64 characters. */ -}}
{{- define "trunkline.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "trunkline.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "trunkline.labels" -}}
{{ include "trunkline.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "trunkline.upstreams" -}}
{{- $urls := .Values.appServers.upstreams -}}
{{- if .Values.appServers.selector -}}
{{- $urls = prepend $urls (printf "http://%s-app:%v" (include "trunkline.name" .) .Values.appServers.port) -}}
{{- end -}}
{{- join "," $urls -}}
{{- end -}}
