package bbr

import (
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// card is a name in the response to GET /v1/models.
type card struct {
	name  string
	model *model
}

// append writes a model as OpenAI and vLLM do
// (https://platform.openai.com/docs/api-reference/models/object); a LoRA adapter has
// its base as "parent", as in vLLM. The time of creation is unknown and always 0.
func (c card) append(body []byte, l *lesson) []byte {
	body = llm.AppendString(append(body, `{"id":`...), c.name)
	body = append(body, `,"object":"model","created":0,"owned_by":"inlet"`...)
	if base := l.baseOfAny(c.model); base != "" {
		body = llm.AppendString(append(body, `,"parent":`...), base)
	}
	return append(body, '}')
}

// listResponse renders the list of models
// (https://platform.openai.com/docs/api-reference/models/list).
func listResponse(cards []card, l *lesson) *filter.Answer {
	body := []byte(`{"object":"list","data":[`)
	for i, c := range cards {
		if i > 0 {
			body = append(body, ',')
		}
		body = c.append(body, l)
	}
	return response(append(body, `]}`...))
}

func response(body []byte) *filter.Answer {
	return &filter.Answer{Status: 200, Headers: [][2]string{{"content-type", "application/json"}}, Body: body}
}

// respondModels responds to GET /v1/models and GET /v1/models/{id}, unless a replica
// should.
func (f *Filter) respondModels(x *filter.Exchange) filter.Verdict {
	l := f.learner.lesson()
	if l.list == nil {
		return filter.Next
	}
	id := llm.ModelID(x.Path)
	if id == "" {
		return filter.Respond(l.list)
	}
	m := f.find(l, id)
	if m == nil {
		// Some proxies merge two slashes into one, also at the beginning of a name.
		if m = f.find(l, "/"+id); m == nil {
			if f.refuseUnknown {
				return refuseUnknown(id)
			}
			return filter.Next
		}
		id = "/" + id
	}
	return filter.Respond(response(card{id, m}.append(nil, l)))
}
