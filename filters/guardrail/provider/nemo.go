package provider

import (
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// nemo is a server of NeMo Guardrails, or NVIDIA's microservice.
type nemo struct {
	config, model, path string
	microservice        bool
	masks               bool
	rails               []string
	limit               int
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
	p.path = "/v1/checks"
	if p.microservice {
		p.path = "/v1/guardrail/checks"
	}
	o.String("path", &p.path, conf.PathPrefix)
	o.Bool("masks", &p.masks)
	o.Strings("rails", &p.rails, conf.NotEmpty)
	p.limit = readLimit(o, 16<<10)
	if p.microservice && p.masks {
		o.Errorf("masks", "the microservice's verdict has no text")
	}
	return p
}

func (p *nemo) Limit() int    { return p.limit }
func (p *nemo) Redacts() bool { return p.masks }
func (p *nemo) Host() string  { return "" }

// Ask writes the text as one message of the user, also that of a system prompt or of a tool's result: the server's rails judge no other
// ones, and it says that they passed. A response is the assistant's message, after the prompt. The server is told which rails it is
// to run, so that it fails if it has none of them.
func (p *nemo) Ask(q *Question) Request {
	b := make([]byte, 0, len(q.Text)+len(q.Prompt)+192)
	b = appendMember(b, "{", "model", p.model)
	b = append(b, `,"messages":[{`...)
	rails := "input"
	if q.Response {
		rails = "output"
		if len(q.Prompt) > 0 {
			b = append(appendMember(b, `"role":"user",`, "content", string(q.Prompt)), "},{"...)
		}
		b = append(b, `"role":"assistant",`...)
	} else {
		b = append(b, `"role":"user",`...)
	}
	b = appendMember(b, "", "content", string(q.Text))
	b = appendMember(b, `}],"guardrails":{`, "config_id", p.config)
	if !p.microservice {
		b = append(append(append(b, `,"rail_types":["`...), rails...), `"]`...)
	}
	return Request{Path: p.path, Body: append(b, "}}"...)}
}

// internalError is what a rail that failed answers with; the verdict is then "blocked".
const internalError = "internal error has occurred"

// Read reads the verdict of the server, or of the microservice.
func (p *nemo) Read(q *Question, status int, body []byte) (Verdict, error) {
	if status != 200 {
		return Verdict{}, refused(status)
	}
	var r nemoReading
	whole := walk(body, r.take)
	switch {
	case r.unclear && !r.blocked, r.status == "" && !r.blocked:
	case r.blocked && strings.Contains(r.content, internalError):
		return Verdict{}, &Failed{Cause: Internal, Which: []string{p.named(r.rail)}}
	case r.blocked:
		return Verdict{Blocked: true, Why: p.why(&r)}, nil
	case !whole:
	case p.microservice && r.status == "success":
		if r.rails == 0 { // nothing was judged
			return Verdict{}, &Failed{Cause: Partial, Which: []string{"none"}, Lasting: true}
		}
		return Verdict{}, nil
	case !p.microservice && r.status == "passed":
		return Verdict{}, nil
	case !p.microservice && r.status == "modified" && p.masks && r.content != "" && r.content != "None" && r.content != string(q.Text):
		return Verdict{Redacted: true, Text: r.content, Why: []string{"mask"}}, nil
	}
	return Verdict{}, &Failed{Cause: Unreadable}
}

// nemoReading is what a response says.
type nemoReading struct {
	status, content, rail string
	blocked, unclear      bool
	rails                 int      // of the microservice, that passed
	blocks                []string // that did not
}

func (r *nemoReading) take(path []string, v value) {
	switch {
	case len(path) == 1 && path[0] == "status":
		r.unclear = r.unclear || v.kind != isString || r.status != ""
		r.blocked = r.blocked || v.isText("blocked")
		r.status = v.text
	case len(path) == 1 && path[0] == "content" && v.kind == isString:
		r.content = v.text
	case len(path) == 1 && path[0] == "rail" && v.kind == isString:
		r.rail = v.text
	case len(path) == 3 && path[0] == "rails_status" && path[2] == "status":
		switch {
		case v.isText("success"):
			r.rails++
		case v.isText("blocked"):
			r.blocked, r.blocks = true, appendNew(r.blocks, path[1])
		default:
			r.unclear = true
		}
	case path[0] == "error" && !v.isScalar("null"), path[0] == "status":
		r.unclear = true
	}
}

// why names the rails that blocked.
func (p *nemo) why(r *nemoReading) []string {
	if len(r.blocks) == 0 {
		return []string{p.named(r.rail)}
	}
	var why []string
	for _, rail := range r.blocks {
		why = appendNew(why, p.named(rail))
	}
	return why
}

// named is the name of a rail for logs and metrics.
func (p *nemo) named(rail string) string {
	if slices.Contains(p.rails, rail) || slices.Contains(nemoRails, rail) {
		return rail
	}
	return other
}
