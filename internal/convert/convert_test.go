package convert

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const legacy = `
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: llama, namespace: models, labels: {team: search}}
spec:
  selector: {app: vllm}
  targetPortNumber: 8000
  extensionRef: {name: epp}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: chat, namespace: models}
spec:
  modelName: llama-3
  criticality: Sheddable
  poolRef: {name: llama}
  targetModels: [{name: llama-3-8b, weight: 90}, {name: llama-3-8b-new, weight: 10}]
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: plain}
spec: {modelName: plain, criticality: Standard, poolRef: {name: llama}}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceObjective
metadata: {name: batch}
spec: {priority: -2, poolRef: {name: llama}}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModelRewrite
metadata: {name: rewrite}
spec:
  poolRef: {name: llama}
  rules:
  - matches: [{model: {type: Exact, value: old-name}}]
    targets: [{modelRewrite: new-name, weight: 1}]
  - targets: [{modelRewrite: any, weight: 1}]
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {}
---
`

func TestConvert(t *testing.T) {
	r, err := Convert([]byte(legacy))
	require.NoError(t, err)
	require.YAMLEq(t, `
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: llama, namespace: models, labels: {team: search}}
spec:
  selector: {matchLabels: {app: vllm}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: epp, kind: Service, failureMode: FailClose, port: {number: 9002}}
`, string(r.Manifests))
	require.YAMLEq(t, `pools: [{name: llama, kubernetes: {inferencePool: llama, namespace: models}}]`, string(r.Companion))
	require.YAMLEq(t, `
filters:
- bbr:
    models:
    - {name: llama-3, targets: [{model: llama-3-8b, pool: llama, weight: 90}, {model: llama-3-8b-new, pool: llama, weight: 10}]}
    - {name: plain, targets: [{pool: llama}]}
    - {name: old-name, targets: [{model: new-name, pool: llama, weight: 1}]}
- picker: {objectives: [{name: chat, priority: -1}, {name: batch, priority: -2}]}
`, string(r.Chain))
	notes := strings.Join(r.Notes, "\n")
	for _, part := range []string{
		"InferencePool models/llama: Inlet picks the replica itself and does not ask the endpoint picker epp",
		"InferencePool models/llama: HTTPRoutes that name it must name the group inference.networking.k8s.io",
		"InferenceModel models/chat: criticality Sheddable is the objective chat",
		"InferenceModelRewrite rewrite: rule 1 matches every model",
		"Service other (v1) is left out",
	} {
		require.Contains(t, notes, part)
	}
	require.Len(t, r.Notes, 5)
}

// What is new already stays as it is, also beside the old one of the same name.
func TestBothGroups(t *testing.T) {
	const v1 = "apiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {name: llama, namespace: models}\nspec: {selector: {matchLabels: {app: x}}, targetPorts: [{number: 1}, {number: 2}]}\n"
	r, err := Convert([]byte(v1), []byte(strings.SplitAfter(legacy, "---\n")[0]))
	require.NoError(t, err)
	parts := strings.Split(string(r.Manifests), "---\n")
	require.Len(t, parts, 2)
	require.YAMLEq(t, v1, parts[0])
	require.YAMLEq(t, `pools: [{name: llama, kubernetes: {inferencePool: llama, namespace: models}}]`, string(r.Companion))
}

func TestNotes(t *testing.T) {
	const head = "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: "
	for text, note := range map[string]string{
		"InferencePool\nmetadata: {name: a}\nspec: {selector: {a: b}, targetPortNumber: 1}":                                                                                                                                                                                   "has no extensionRef",
		"InferenceModel\nmetadata: {name: a}\nspec: {modelName: m, criticality: High, poolRef: {name: p}}":                                                                                                                                                                    `criticality "High" is not known`,
		"InferenceModelRewrite\nmetadata: {name: a}\nspec: {poolRef: {name: p}, rules: [{matches: [{model: {type: Regex, value: x}}]}]}":                                                                                                                                      "other than by the exact name",
		"InferenceModel\nmetadata: {name: a}\nspec: {modelName: m, poolRef: {name: p}}\n---\n" + head + "InferenceModel\nmetadata: {name: b}\nspec: {modelName: m, poolRef: {name: q}}":                                                                                       "there is a model m already",
		"InferencePool\nmetadata: {name: a, namespace: x}\nspec: {selector: {a: b}, targetPortNumber: 1, extensionRef: {name: e}}\n---\n" + head + "InferencePool\nmetadata: {name: a, namespace: y}\nspec: {selector: {a: b}, targetPortNumber: 1, extensionRef: {name: e}}": "has the name of a pool in another namespace",
	} {
		r, err := Convert([]byte(head + text))
		require.NoError(t, err, text)
		require.Contains(t, strings.Join(r.Notes, "\n"), note)
	}
}

// kubectl prints several objects as one List.
func TestList(t *testing.T) {
	r, err := Convert([]byte("apiVersion: v1\nkind: List\nitems:\n- {apiVersion: inference.networking.x-k8s.io/v1alpha2, kind: InferenceModel, metadata: {name: a}, spec: {modelName: m, poolRef: {name: p}}}\n"))
	require.NoError(t, err)
	require.YAMLEq(t, `filters: [{bbr: {models: [{name: m, targets: [{pool: p}]}]}}]`, string(r.Chain))
}

func TestErrors(t *testing.T) {
	const head = "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: "
	for text, want := range map[string]string{
		"kind: List\nitems: [null]\n":           "not a manifest",
		"a: [":                                  "yaml: ",
		"kind: InferencePool\napiVersion: v1\n": "a document without kind or metadata.name",
		head + "InferencePool\nmetadata: {name: a}\nspec: {}":                       "InferencePool a: needs spec.selector and spec.targetPortNumber",
		head + "InferencePool\nmetadata: {name: a}\nspec: {targetPortNumber: many}": "InferencePool a: spec: ",
		head + "InferenceModel\nmetadata: {name: a}\nspec: {}":                      "InferenceModel a: needs spec.modelName",
		head + "InferenceObjective\nmetadata: {name: a}\nspec: {priority: high}":    "InferenceObjective a: spec: ",
		head + "InferenceModelRewrite\nmetadata: {name: a}\nspec: {rules: 3}":       "InferenceModelRewrite a: spec: ",
	} {
		_, err := Convert([]byte(text))
		require.ErrorContains(t, err, want, text)
	}
	r, err := Convert(nil, []byte("# nothing\n---\n---\n# nothing\n"))
	require.NoError(t, err)
	require.Equal(t, new(Result), r)
}
