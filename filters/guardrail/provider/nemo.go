package provider

import (
	"slices"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// nemo is a server of NeMo Guardrails, or NVIDIA's microservice.
type nemo struct {
	config, model string
	microservice  bool
	masks, rails  []string
	limit         int
}

// nemoRails are rails that NeMo Guardrails' documentation lists, for logs and metrics.
var nemoRails = []string{
	"self check input", "self check output", "self check facts", "self check hallucination", "llama guard check input", "llama guard check output",
	"regex check input", "regex check output", "jailbreak detection heuristics", "jailbreak detection model", "injection detection",
	"detect sensitive data on input", "detect sensitive data on output", "mask sensitive data on input", "mask sensitive data on output",
	"gliner detect pii on input", "gliner detect pii on output", "gliner mask pii on input", "gliner mask pii on output",
}

func readNemo(o *conf.Object) Provider {
	p := &nemo{model: "none"}
	o.Required("config")
	o.String("config", &p.config, conf.NotEmpty)
	o.String("model", &p.model, conf.NotEmpty)
	o.Bool("microservice", &p.microservice)
	o.Strings("masks", &p.masks, conf.NotEmpty)
	o.Strings("rails", &p.rails, conf.NotEmpty)
	p.limit = readLimit(o, 16<<10)
	if p.microservice && len(p.masks) > 0 {
		o.Errorf("masks", "the microservice's verdict has no text")
	}
	return p
}

func (p *nemo) Limit() int    { return p.limit }
func (p *nemo) Redacts() bool { return len(p.masks) > 0 }
func (p *nemo) Host() string  { return "" }

// Ask writes one message with a string, also for a system prompt or the result of a tool: of several messages or parts the server judges some, and fails on others.
func (p *nemo) Ask(q *Question) Request {
	b := make([]byte, 0, len(q.Text)+128)
	b = appendMember(b, "{", "model", p.model)
	role, path := "user", "/v1/checks"
	if q.Response {
		role = "assistant"
	}
	b = appendMember(b, `,"messages":[{`, "role", role)
	b = appendMember(b, ",", "content", string(q.Text))
	b = appendMember(b, `}],"guardrails":{`, "config_id", p.config)
	if p.microservice {
		path = "/v1/guardrail/checks"
	}
	return Request{Path: path, Body: append(b, "}}"...)}
}

func (p *nemo) Read(q *Question, status int, body []byte) (Verdict, error) {
	if status != 200 {
		return Verdict{}, refused(status)
	}
	if p.microservice {
		return p.readMicroservice(body)
	}
	return Verdict{}, &Failed{Cause: Unreadable} // TODO
}

func (p *nemo) readMicroservice(body []byte) (Verdict, error) {
	return Verdict{}, &Failed{Cause: Unreadable} // TODO
}

// named is the name of a rail for logs and metrics.
func (p *nemo) named(rail string) string {
	if slices.Contains(p.rails, rail) || slices.Contains(p.masks, rail) || slices.Contains(nemoRails, rail) {
		return rail
	}
	return other
}
