{{/* The name of the Gateway's listener. Patches find Envoy's listener by it. */}}
{{- define "inlet.listener" -}}
{{- if .Values.gateway.tlsSecret }}https{{ else }}http{{ end }}
{{- end }}
