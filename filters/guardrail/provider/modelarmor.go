package provider

import (
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// modelArmor is Google Cloud's service.
type modelArmor struct {
	template, location string
	limit              int
}

func readModelArmor(o *conf.Object) Provider {
	p := &modelArmor{}
	o.Required("template")
	o.String("template", &p.template, template)
	if parts := strings.Split(p.template, "/"); len(parts) == 6 {
		p.location = parts[3]
	}
	p.limit = readLimit(o, 8<<10)
	return p
}

// template wants the full name of a template: it becomes part of a path.
func template(s string) string {
	parts := strings.Split(s, "/")
	right := len(parts) == 6 && parts[0] == "projects" && parts[2] == "locations" && parts[4] == "templates"
	for i := 1; right && i < 6; i += 2 {
		// A project may have the domain of its organization before it, with a colon.
		right = parts[i] != "" && strings.Trim(parts[i], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:") == "" && strings.Trim(parts[i], ".") != ""
	}
	if !right {
		return "is not the name of a template (want projects/PROJECT/locations/LOCATION/templates/TEMPLATE)"
	}
	return ""
}

func (p *modelArmor) Limit() int    { return p.limit }
func (p *modelArmor) Redacts() bool { return true }
func (p *modelArmor) Host() string  { return "modelarmor." + p.location + ".rep.googleapis.com" }

func (p *modelArmor) Ask(q *Question) Request {
	b := make([]byte, 0, len(q.Text)+len(q.Prompt)+128)
	if !q.Response {
		b = appendMember(b, `{"userPromptData":{`, "text", string(q.Text))
		return Request{Path: "/v1/" + p.template + ":sanitizeUserPrompt", Body: append(b, "}}"...)}
	}
	b = appendMember(b, `{"modelResponseData":{`, "text", string(q.Text))
	b = append(b, '}')
	if len(q.Prompt) > 0 {
		b = appendMember(b, ",", "userPrompt", string(q.Prompt))
	}
	return Request{Path: "/v1/" + p.template + ":sanitizeModelResponse", Body: append(b, '}')}
}

// armorFilters are the members with the filters' results, and the filters' names.
var armorFilters = map[string]string{
	"raiFilterResult":            "rai",
	"sdpFilterResult":            sdp,
	"piAndJailbreakFilterResult": "pi_and_jailbreak",
	"maliciousUriFilterResult":   "malicious_uris",
	"csamFilterFilterResult":     "csam",
	"virusScanFilterResult":      "virus_scan",
}

const sdp = "sdp"

// armorTypes are what the filter for responsible AI looks for.
var armorTypes = []string{"sexually_explicit", "hate_speech", "harassment", "dangerous"}

// armorFilter is what one filter said.
type armorFilter struct {
	key, member, name                 string
	executed, judged, matched, failed bool
}

// armorReading is what a response says.
type armorReading struct {
	invocation, state string
	filters           []armorFilter
	types             []string // of responsible AI, that matched
	// Of the filter for sensitive data: inspected is that data was found and not taken out, redacted that there is a text without it.
	inspected, redacted bool
	text                string
	broken              bool // it contradicts itself
}

// Read lets a match count wherever it stands: in the result as a whole, or of any filter, also one that Inlet does not know. Without
// one, all filters must have run and found nothing.
func (p *modelArmor) Read(q *Question, status int, body []byte) (Verdict, error) {
	if status != 200 {
		return Verdict{}, refused(status)
	}
	var r armorReading
	whole := walk(body, r.take)
	var why, missing []string
	blocked := false
	for i := range r.filters {
		f := &r.filters[i]
		if f.matched {
			why = appendNew(why, f.name)
			blocked = blocked || f.name != sdp || r.inspected
		}
		if f.failed || !f.executed || !f.judged {
			missing = appendNew(missing, f.name)
		}
	}
	if len(why) == 0 && r.state == matchFound {
		why, blocked = []string{other}, true
	}
	for _, t := range r.types {
		why = appendNew(why, "rai/"+t)
	}
	replaces := r.redacted && r.text != string(q.Text)
	switch {
	case blocked, len(why) > 0 && (!whole || r.broken || !replaces):
		return Verdict{Blocked: true, Why: why}, nil
	case !whole || r.broken || r.invocation == "" || r.state == "":
		return Verdict{}, &Failed{Cause: Unreadable}
	}
	v := Verdict{Redacted: len(why) > 0, Why: why}
	if v.Redacted {
		v.Text = r.text
	}
	switch {
	case len(r.filters) == 0:
		return v, &Failed{Cause: Partial, Which: []string{"none"}, Lasting: true} // a template without filters
	case len(missing) > 0 || r.invocation != "SUCCESS":
		return v, &Failed{Cause: Partial, Which: missing}
	case !v.Redacted && r.state != "NO_MATCH_FOUND":
		return Verdict{}, &Failed{Cause: Unreadable}
	}
	return v, nil
}

const matchFound = "MATCH_FOUND"

// take takes a value of sanitizationResult.
func (r *armorReading) take(path []string, v value) {
	if path[0] != "sanitizationResult" || len(path) < 2 {
		return
	}
	switch {
	case len(path) == 2 && path[1] == "filterMatchState":
		r.broken = r.broken || r.state != ""
		if r.state != matchFound { // of two, the one that matched
			r.state = v.text
		}
	case len(path) == 2 && path[1] == "invocationResult":
		r.broken = r.broken || r.invocation != ""
		r.invocation = v.text
	case path[1] == "filterResults" && len(path) > 2:
		r.filter(path[2]).take(r, path[3:], v)
	}
}

// filter returns what is known of the filter whose result stands under a key.
func (r *armorReading) filter(key string) *armorFilter {
	at := slices.IndexFunc(r.filters, func(f armorFilter) bool { return f.key == key })
	if at < 0 {
		at = len(r.filters)
		r.filters = append(r.filters, armorFilter{key: key, name: other})
	}
	return &r.filters[at]
}

// take takes a value of the filter's result, which is one member of the entry. A match counts at any depth.
func (f *armorFilter) take(r *armorReading, path []string, v value) {
	switch {
	case len(path) == 0 || len(path) == 1 && v.kind != isContainer:
		f.failed = f.failed || v.kind != isContainer
		return
	case len(path) == 1:
		f.failed = f.failed || f.member != ""
		f.member, f.name = path[0], other
		if name := armorFilters[path[0]]; name != "" {
			f.name = name
		}
		return
	}
	path = path[1:]
	switch path[len(path)-1] {
	case "executionState":
		f.executed = true
		f.failed = f.failed || !v.isText("EXECUTION_SUCCESS")
	case "matchState":
		f.judged = true
		matched := v.isText(matchFound)
		f.matched = f.matched || matched
		f.failed = f.failed || !matched && !v.isText("NO_MATCH_FOUND")
		if matched {
			f.takeMatch(r, path)
		}
	case "text":
		if f.name == sdp && len(path) == 3 && path[0] == "deidentifyResult" && path[1] == "data" && v.kind == isString {
			r.broken = r.broken || r.redacted
			r.redacted, r.text = true, v.text
		}
	}
}

func (f *armorFilter) takeMatch(r *armorReading, path []string) {
	switch {
	case f.name == sdp && path[0] != "deidentifyResult": // that of redactResult is an image
		r.inspected = true
	case f.name == "rai" && len(path) == 3 && path[0] == "raiFilterTypeResults":
		t := path[1]
		if !slices.Contains(armorTypes, t) {
			t = other
		}
		r.types = appendNew(r.types, t)
	}
}

// appendNew appends a word that is not there yet.
func appendNew(words []string, word string) []string {
	if slices.Contains(words, word) {
		return words
	}
	return append(words, word)
}
