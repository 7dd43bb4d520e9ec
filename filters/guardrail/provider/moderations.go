package provider

import (
	"math"
	"slices"
	"strconv"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// moderations is the API of OpenAI, and of servers that offer the same.
type moderations struct {
	path, model string
	limit       int
	categories  []string           // that count; empty: all, by the service's own judgement
	thresholds  map[string]float64 // scores from which a category counts
}

// moderationCategories are those that OpenAI's documentation lists.
var moderationCategories = []string{
	"harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
	"self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
}

func readModerations(o *conf.Object) Provider {
	p := &moderations{path: "/v1/moderations", model: "omni-moderation-latest", thresholds: map[string]float64{}}
	o.String("path", &p.path, conf.PathPrefix)
	o.String("model", &p.model, conf.NotEmpty)
	p.limit = readLimit(o, 32<<10)
	o.Strings("categories", &p.categories, conf.NotEmpty)
	if o.Has("categories") && len(p.categories) == 0 {
		o.Errorf("categories", "needs at least one entry")
	}
	o.Object("thresholds", func(o *conf.Object) {
		o.Each(func(name string, v *conf.Value) {
			var from float64
			if v.Float(&from, 0, 1) {
				p.thresholds[name] = from
			}
			if len(p.categories) > 0 && !slices.Contains(p.categories, name) {
				v.Errorf("%q is not one of the categories", name)
			}
		})
	})
	return p
}

func (p *moderations) Limit() int    { return p.limit }
func (p *moderations) Redacts() bool { return false }
func (p *moderations) Host() string  { return "api.openai.com" }

func (p *moderations) Ask(q *Question) Request {
	b := make([]byte, 0, len(q.Text)+64)
	b = appendMember(b, "{", "model", p.model)
	b = appendMember(b, ",", "input", string(q.Text))
	return Request{Path: p.path, Body: append(b, '}')}
}

// Read wants exactly one result. A category of the configuration that it does not have was not judged.
func (p *moderations) Read(_ *Question, status int, body []byte) (Verdict, error) {
	if status != 200 {
		return Verdict{}, refused(status)
	}
	var why, judged []string
	var flagged, named, unclear bool
	var results, verdicts int
	whole := walk(body, func(path []string, v value) {
		if len(path) < 3 || path[0] != "results" || path[1] != item {
			unclear = unclear || path[0] == "error" && !v.isScalar("null")
			if len(path) == 2 && path[0] == "results" {
				results++
			}
			return
		}
		switch {
		case len(path) == 3 && path[2] == "flagged":
			verdicts++
			flagged = flagged || v.isScalar("true")
			unclear = unclear || !v.isScalar("true") && !v.isScalar("false")
		case len(path) == 4 && path[2] == "categories", len(path) == 4 && path[2] == "category_scores":
			named = named || v.isScalar("true")
			found, known := p.category(path[2] == "category_scores", path[3], v)
			if known {
				judged = appendNew(judged, path[3])
			}
			if found {
				why = appendNew(why, p.named(path[3]))
			}
		}
	})
	var missing []string
	for _, c := range p.categories {
		if !slices.Contains(judged, c) {
			missing = append(missing, c)
		}
	}
	for c := range p.thresholds {
		if !slices.Contains(judged, c) {
			missing = appendNew(missing, c)
		}
	}
	slices.Sort(missing)
	if flagged && !named && len(why) == 0 { // for a reason that it does not give
		why = []string{other}
	}
	switch {
	case len(why) > 0:
		return Verdict{Blocked: true, Why: why}, nil
	case !whole || unclear || results != 1 || verdicts != 1:
		return Verdict{}, &Failed{Cause: Unreadable}
	case len(missing) > 0:
		return Verdict{}, &Failed{Cause: Partial, Which: missing, Lasting: true}
	}
	return Verdict{}, nil
}

// category judges a category by its score if it has a threshold, else by the service's own judgement. known is false if the value says nothing.
func (p *moderations) category(score bool, name string, v value) (found, known bool) {
	from, scored := p.thresholds[name]
	if score != scored || len(p.categories) > 0 && !slices.Contains(p.categories, name) {
		return false, false
	}
	if !scored {
		return v.isScalar("true"), v.isScalar("true") || v.isScalar("false")
	}
	n, err := strconv.ParseFloat(v.text, 64)
	if err != nil || v.kind != isScalar || math.IsNaN(n) {
		return false, false
	}
	return n >= from, true
}

// named is the name of a category for logs and metrics.
func (p *moderations) named(category string) string {
	_, scored := p.thresholds[category]
	if scored || slices.Contains(p.categories, category) || slices.Contains(moderationCategories, category) {
		return category
	}
	return other
}
