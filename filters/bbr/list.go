package bbr

import (
	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/llm"
)

// card is a model in the answer to GET /v1/models.
type card struct{ name, base string }

// listAnswer renders the list of models as OpenAI and vLLM do
// (https://platform.openai.com/docs/api-reference/models/list); a LoRA adapter
// names its base as "parent", as in vLLM. The time of creation is not known and
// the same everywhere.
func listAnswer(cards []card) *filter.Answer {
	body := []byte(`{"object":"list","data":[`)
	for i, c := range cards {
		if i > 0 {
			body = append(body, ',')
		}
		body = llm.AppendString(append(body, `{"id":`...), c.name)
		body = append(body, `,"object":"model","created":0,"owned_by":"inlet"`...)
		if c.base != "" {
			body = llm.AppendString(append(body, `,"parent":`...), c.base)
		}
		body = append(body, '}')
	}
	return &filter.Answer{
		Status:  200,
		Headers: [][2]string{{"content-type", "application/json"}},
		Body:    append(body, `]}`...),
	}
}
