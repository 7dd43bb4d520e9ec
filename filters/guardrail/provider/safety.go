package provider

import (
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// safetyModel is a model that says "safe", or "unsafe" and categories, such as Llama Guard, behind an API compatible with OpenAI's.
type safetyModel struct {
	path, model string
	limit       int
	categories  map[string]string
}

// hazards are the categories of Llama Guard 3 and 4.
var hazards = map[string]string{
	"S1": "violent_crimes", "S2": "non_violent_crimes", "S3": "sex_related_crimes", "S4": "child_sexual_exploitation", "S5": "defamation",
	"S6": "specialized_advice", "S7": "privacy", "S8": "intellectual_property", "S9": "indiscriminate_weapons", "S10": "hate",
	"S11": "suicide_and_self_harm", "S12": "sexual_content", "S13": "elections", "S14": "code_interpreter_abuse",
}

func readSafetyModel(o *conf.Object) Provider {
	p := &safetyModel{path: "/v1/chat/completions", categories: hazards}
	o.Required("model")
	o.String("model", &p.model, conf.NotEmpty)
	o.String("path", &p.path, conf.PathPrefix)
	p.limit = readLimit(o, 16<<10)
	o.Object("categories", func(o *conf.Object) {
		p.categories = map[string]string{}
		o.Each(func(code string, v *conf.Value) {
			var name string
			if v.String(&name, conf.NotEmpty) {
				p.categories[code] = name
			}
		})
	})
	return p
}

func (p *safetyModel) Limit() int    { return p.limit }
func (p *safetyModel) Redacts() bool { return false }
func (p *safetyModel) Host() string  { return "" }

// Ask writes the conversation: the model judges its last message. A response has to follow a message of the user, even an empty one.
func (p *safetyModel) Ask(q *Question) Request {
	b := make([]byte, 0, len(q.Text)+len(q.Prompt)+192)
	b = appendMember(b, "{", "model", p.model)
	user := q.Text
	if q.Response {
		user = q.Prompt
	}
	b = appendMember(b, `,"messages":[{"role":"user",`, "content", string(user))
	if q.Response {
		b = appendMember(b, `},{"role":"assistant",`, "content", string(q.Text))
	}
	return Request{Path: p.path, Body: append(b, `}],"temperature":0,"max_tokens":64,"stream":false}`...)}
}

// Read wants exactly one choice, whose text is "safe" and nothing else.
func (p *safetyModel) Read(_ *Question, status int, body []byte) (Verdict, error) {
	if status != 200 {
		return Verdict{}, refused(status)
	}
	var why []string
	var unsafe, unclear bool
	safe := 0
	whole := walk(body, func(path []string, v value) {
		if path[0] == "error" && !v.isScalar("null") {
			unclear = true
		}
		if len(path) < 4 || path[0] != "choices" || path[1] != item || path[2] != "message" || path[3] != "content" {
			return
		}
		if len(path) > 4 || v.kind != isString {
			unclear = true
			return
		}
		verdict, codes, _ := strings.Cut(strings.TrimSpace(v.text), "\n")
		switch verdict = strings.ToLower(strings.TrimSpace(verdict)); {
		case verdict == "unsafe":
			unsafe, why = true, p.names(why, codes)
		case verdict == "safe" && codes == "":
			safe++
		default:
			unclear = true
		}
	})
	switch {
	case unsafe:
		return Verdict{Blocked: true, Why: why}, nil
	case !whole || unclear || safe != 1:
		return Verdict{}, &Failed{Cause: Unreadable}
	}
	return Verdict{}, nil
}

// names appends the names of codes such as "S1,S10".
func (p *safetyModel) names(why []string, codes string) []string {
	for _, code := range strings.FieldsFunc(codes, func(r rune) bool { return r == ',' || r <= ' ' }) {
		name := p.categories[code]
		if name == "" {
			name = other
		}
		why = appendNew(why, name)
	}
	if len(why) == 0 {
		why = []string{other}
	}
	return why
}
