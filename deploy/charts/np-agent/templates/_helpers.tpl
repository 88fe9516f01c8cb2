{{- define "np-agent.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "np-agent.fullname" -}}
{{- $name := include "np-agent.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "np-agent.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "np-agent.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.create is false: name the account that exists in serviceAccount.name" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "np-agent.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A selector can never be changed: no value reaches this. */}}
{{- define "np-agent.selectorLabels" -}}
k8s-app: np-agent
{{- end }}

{{- /* What a pod has of them does not change with the version: a new chart alone replaces no agent. */}}
{{- define "np-agent.steadyLabels" -}}
app.kubernetes.io/name: {{ include "np-agent.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: agent
{{- end }}

{{- define "np-agent.labels" -}}
{{ include "np-agent.steadyLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{- define "np-agent.daemonSetLabels" -}}
{{- $ours := printf "%s\n%s" (include "np-agent.labels" .) (include "np-agent.selectorLabels" .) }}
{{- mergeOverwrite (fromYaml $ours) (default dict .Values.labels) | toYaml }}
{{- end }}

{{- define "np-agent.podLabels" -}}
{{- $selector := include "np-agent.selectorLabels" . }}
{{- $theirs := default dict .Values.podLabels }}
{{- range $label, $_ := fromYaml $selector }}
{{- if hasKey $theirs $label }}
{{- fail (printf "podLabels: %s is the selector's label, which cannot be changed: leave it out" $label) }}
{{- end }}
{{- end }}
{{- $ours := printf "%s\n%s" (include "np-agent.steadyLabels" .) $selector }}
{{- mergeOverwrite (fromYaml $ours) $theirs | toYaml }}
{{- end }}

{{- /* An option that has the agent's own default is left out. */}}
{{- define "np-agent.args" -}}
{{- $args := list }}
{{- range .Values.uplinks }}
{{- $args = append $args (printf "--uplink=%s" .) }}
{{- end }}
{{- range .Values.foreign }}
{{- $args = append $args (printf "--foreign=%s" .) }}
{{- end }}
{{- range .Values.tunnelPorts }}
{{- $args = append $args (printf "--tunnel-port=%d" (int64 .)) }}
{{- end }}
{{- range .Values.sourcePrefixes }}
{{- $args = append $args (printf "--source-prefixes=%s" .) }}
{{- end }}
{{- if ne .Values.pending "deny" }}
{{- $args = append $args (printf "--pending=%s" .Values.pending) }}
{{- end }}
{{- if ne (int64 .Values.checkEvery) 60 }}
{{- $args = append $args (printf "--check-every=%d" (int64 .Values.checkEvery)) }}
{{- end }}
{{- with .Values.startupTaint }}
{{- $args = append $args (printf "--startup-taint=%s" .) }}
{{- end }}
{{- if ne .Values.events "denied" }}
{{- $args = append $args (printf "--events=%s" .Values.events) }}
{{- end }}
{{- if ne .Values.log "info" }}
{{- $args = append $args (printf "--log=%s" .Values.log) }}
{{- end }}
{{- if ne .Values.logFormat "text" }}
{{- $args = append $args (printf "--log-format=%s" .Values.logFormat) }}
{{- end }}
{{- with concat $args (default list .Values.extraArgs) }}
{{- toYaml . }}
{{- end }}
{{- end }}
