{{- define "labels" -}}
app.kubernetes.io/name: triptych
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{/* A pod template's metadata; `annotations` beside those of the values. */}}
{{- define "pod-metadata" -}}
labels: {{- include "labels" . | nindent 2 }}
annotations: {{- merge (dict) (.annotations | default dict) (index .root.Values .part).podAnnotations | toYaml | nindent 2 }}
{{- end }}

{{/* What the pods of all parts have alike. */}}
{{- define "pod" -}}
{{- $own := index .root.Values .part -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  seccompProfile: { type: RuntimeDefault }
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "labels" . | nindent 8 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $field := list "runtimeClassName" "priorityClassName" "nodeSelector" "tolerations" "affinity" }}
{{- with index $own $field }}
{{ $field }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "container-security" -}}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: { drop: [ALL] }
{{- end }}
