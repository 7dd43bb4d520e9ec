package quota

import (
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// places say where a client may send its key.
type places struct {
	keyed   bool     // there are keys at all
	headers []string // in which a key is accepted
	query   []string // parameters in which a key is accepted
	hides   []string // headers that must not carry any caller's key to the replica; they include headers
	where   string   // the places, in words
}

// carriers are the headers in which clients of model APIs (OpenAI's, Anthropic's,
// Azure's, Google's) or proxies send keys. None of them may carry one of our keys to a
// replica, whether the caller's or another's.
var carriers = []string{"x-api-key", "authorization", "api-key", "x-goog-api-key", "apikey", "proxy-authorization"}

// mayCarryKey reports whether clients send keys in a header. What stands there must not become a name: that of an account, or of an
// application in the access log.
func (p *places) mayCarryKey(header string) bool {
	return header == "cookie" || slices.Contains(p.hides, header)
}

func defaultPlaces() places {
	p := places{headers: []string{"x-api-key", "authorization"}, hides: carriers}
	p.describe()
	return p
}

// read reads in which places a key is accepted. "header" is the older spelling, for one header.
func (p *places) read(o *conf.Object) {
	var header string
	switch alone := o.String("header", &header, conf.HeaderName); {
	case o.Strings("from", &p.headers, conf.HeaderName):
		if alone {
			o.Errorf("header", "is the older spelling of \"from\"; set only one of them")
		}
		if len(p.headers) == 0 {
			o.Errorf("from", "needs at least one header")
		}
	case alone:
		p.headers = []string{header}
	}
	o.Strings("query", &p.query, isParameter)
	p.hides = slices.Clone(carriers)
	for i, place := range p.headers {
		if slices.Contains(p.headers[:i], place) {
			o.Errorf("from", "%q is listed twice", place)
		}
		if !slices.Contains(p.hides, place) {
			p.hides = append(p.hides, place)
		}
	}
	p.describe()
}

func isParameter(s string) string {
	if s == "" || strings.ContainsAny(s, "&=%#? ") {
		return "is not the name of a query parameter"
	}
	return ""
}

// describe says the places in words.
func (p *places) describe() {
	said := make([]string, 0, len(p.headers)+len(p.query))
	for _, place := range p.headers {
		if hasScheme(place) {
			said = append(said, place+": Bearer YOUR_KEY")
		} else {
			said = append(said, place+": YOUR_KEY")
		}
	}
	for _, name := range p.query {
		said = append(said, "?"+name+"=YOUR_KEY")
	}
	p.where = strings.Join(said, " or ")
}

// hasScheme reports whether a header begins with the name of a scheme (RFC 9110, 11.4).
func hasScheme(header string) bool {
	return header == "authorization" || header == "proxy-authorization"
}

// identity is where a filter before Inlet says who calls. It is trusted.
type identity struct {
	header         string
	namespace, key string // of the dynamic metadata
}

func (i *identity) read(o *conf.Object, p *places) {
	byHeader := o.String("header", &i.header, conf.HeaderName)
	if p.mayCarryKey(i.header) {
		o.Errorf("header", "%q may carry a key, which would become a name in the access log", i.header)
	}
	byMetadata := o.Object("metadata", func(o *conf.Object) {
		o.String("namespace", &i.namespace, conf.NotEmpty)
		o.String("key", &i.key, conf.NotEmpty)
		o.Required("namespace", "key")
	})
	if byHeader == byMetadata {
		o.Errorf("", "needs either a header or metadata")
	}
}
