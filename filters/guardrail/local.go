package guardrail

import (
	"unicode/utf8"

	"github.com/inlet-proxy/inlet/filters/guardrail/detect"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// readLocal reads what is found in Envoy itself.
func (p *source) readLocal(o *conf.Object) {
	p.readDetect(o)
	n := 0
	o.List("deny", func(v *conf.Value) {
		n++
		var text string
		if v.String(&text, denied) {
			p.deny = append(p.deny, text)
		}
	})
	notEmpty(o, "deny", n)
	n = 0
	o.List("patterns", func(v *conf.Value) {
		n++
		p.readPattern(v)
	})
	notEmpty(o, "patterns", n)
	if !o.Has("detect") && !o.Has("deny") && !o.Has("patterns") {
		o.Errorf("", "finds nothing: needs detect, deny or patterns")
	}
}

// all is the word for all detectors.
const all = "all"

func (p *source) readDetect(o *conf.Object) {
	n := 0
	o.Value("detect", func(v *conf.Value) {
		v.OneOrList(func(v *conf.Value) {
			n++
			var name string
			if !v.Enum(&name, append([]string{all}, detect.GroupNames...)...) {
				return
			}
			for _, group := range detect.GroupNames {
				if name == all || name == group {
					p.kinds |= detect.Groups[group]
				}
			}
		})
	})
	notEmpty(o, "detect", n)
}

// denied refuses what is too short to be looked for.
func denied(text string) string {
	switch {
	case utf8.RuneCountInString(text) < 2:
		return "must have at least two characters"
	case len(text) > maxDenied:
		return "must not be longer than 200 bytes"
	}
	return ""
}

// maxDenied bounds what of a stream waits for the rest of a phrase.
const maxDenied = 200

// readPattern reads a pattern, alone or with texts that it has to find.
func (p *source) readPattern(v *conf.Value) {
	v.Either(func(o *conf.Object) {
		var expr string
		var finds []string
		o.Required("pattern", "finds")
		ok := o.String("pattern", &expr, conf.NotEmpty)
		o.Strings("finds", &finds, conf.NotEmpty)
		notEmpty(o, "finds", len(finds))
		if !ok || expr == "" {
			return
		}
		d, err := detect.New(detect.Config{Patterns: []string{expr}})
		if err != nil {
			o.Errorf("pattern", "%s", err.Why)
			return
		}
		var s detect.Scanner
		for _, text := range finds {
			if len(d.Find(&s, []byte(text))) == 0 {
				o.Errorf("finds", "the pattern does not match %q", text)
			}
		}
		p.patterns = append(p.patterns, expr)
	}, func(v *conf.Value) {
		var expr string
		if !v.String(&expr, conf.NotEmpty) {
			return
		}
		if _, err := detect.New(detect.Config{Patterns: []string{expr}}); err != nil {
			v.Errorf("%s", err.Why)
			return
		}
		p.patterns = append(p.patterns, expr)
	})
}
