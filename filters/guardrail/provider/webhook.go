package provider

import (
	"slices"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// webhook is a service with Inlet's own schema.
type webhook struct {
	path    string
	limit   int
	reasons []string
}

func readWebhook(o *conf.Object) Provider {
	p := &webhook{path: "/"}
	o.String("path", &p.path, conf.PathPrefix)
	p.limit = readLimit(o, 64<<10)
	o.Strings("reasons", &p.reasons, conf.NotEmpty)
	return p
}

func (p *webhook) Limit() int    { return p.limit }
func (p *webhook) Redacts() bool { return true }
func (p *webhook) Host() string  { return "" }

func (p *webhook) Ask(q *Question) Request {
	b := make([]byte, 0, len(q.Text)+len(q.Prompt)+128)
	phase := "request"
	if q.Response {
		phase = "response"
	}
	b = appendMember(b, "{", "phase", phase)
	for _, m := range []struct{ name, text string }{{"role", q.Role}, {"model", q.Model}, {"prompt", string(q.Prompt)}} {
		if m.text != "" {
			b = appendMember(b, ",", m.name, m.text)
		}
	}
	b = appendMember(b, ",", "text", string(q.Text))
	return Request{Path: p.path, Body: append(b, '}')}
}

// Read lets a block count whatever stands beside it, and whatever the status is: a service that says so has judged. All else has to be
// complete and clear.
func (p *webhook) Read(q *Question, status int, body []byte) (Verdict, error) {
	var action, text, reason string
	var blocked, hasText, unclear bool
	var actions, answers, texts int // "action", "blocked" and "text"
	whole := walk(body, func(path []string, v value) {
		switch path[0] {
		case "action":
			if len(path) == 1 {
				actions++
				action, blocked = v.text, blocked || v.isText("block")
			}
			unclear = unclear || len(path) > 1 || v.kind != isString
		case "blocked":
			if len(path) == 1 {
				answers++
				blocked = blocked || v.isScalar("true")
			}
			unclear = unclear || !v.isScalar("false")
		case "text":
			if len(path) == 1 {
				texts++
				text = v.text
			}
			hasText = v.kind == isString && texts == 1
		case "reason":
			if len(path) == 1 && v.kind == isString {
				reason = v.text
			}
		case "error":
			unclear = unclear || !v.isScalar("null")
		}
	})
	why := []string{other}
	if slices.Contains(p.reasons, reason) {
		why[0] = reason
	}
	switch {
	case blocked:
		return Verdict{Blocked: true, Why: why}, nil
	case status != 200:
		return Verdict{}, refused(status)
	case !whole || unclear || actions > 1 || answers > 1 || texts > 1:
	case action == "redact" && hasText:
		return Verdict{Redacted: true, Text: text, Why: why}, nil
	case action == "pass", actions == 0 && answers == 1:
		return Verdict{}, nil
	}
	return Verdict{}, &Failed{Cause: Unreadable}
}
