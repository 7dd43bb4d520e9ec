package quota

import (
	"slices"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// maxKeys limits how many keys of one request are looked up. A client has one and may
// send it in each place; a client without a key must not make us hash for long.
const maxKeys = 16

// caller is the owner of a request's keys.
type caller struct {
	key      *key // nil if none is known
	keys     int  // number of values where keys belong, known or not
	disagree bool // two keys belong to different applications
	at       time.Time
	known    [maxKeys]string
	distinct int // length of known, which has the caller's keys, each once
}

// identify looks in every place. A value that is not one of our keys may be a
// credential for the service behind Inlet, so it does not matter if there is also a
// key.
func (p *places) identify(b *book, x *filter.Exchange, who *caller) {
	for _, header := range p.headers {
		for n := 0; ; n++ {
			value, ok := x.RequestHeaders.At(header, n)
			if !ok {
				break
			}
			if who.takeHeader(b, header, value) || strings.IndexByte(value, ',') < 0 {
				continue
			}
			// Proxies join the values of two lines.
			for part := range strings.SplitSeq(value, ",") {
				who.takeHeader(b, header, part)
			}
		}
	}
	if len(p.query) > 0 {
		p.identifyQuery(b, x.Path, who)
	}
}

// identifyQuery looks for keys in the query of a path.
func (p *places) identifyQuery(b *book, path string, who *caller) {
	_, query, _ := strings.Cut(path, "?")
	for param := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(param, "=")
		if slices.Contains(p.query, name) {
			who.take(b, unescaped(value))
		}
	}
}

// takeHeader reads one value of a header and reports whether it is a key.
func (who *caller) takeHeader(b *book, header, value string) bool {
	text := strings.TrimSpace(value)
	if hasScheme(header) {
		text, _ = cutBearer(text)
	}
	return who.take(b, text)
}

// take reads one value and reports whether it is a key.
func (who *caller) take(b *book, text string) bool {
	if text == "" || who.keys == maxKeys {
		return false
	}
	who.keys++
	k := b.lookup(text)
	if k == nil {
		return false
	}
	who.disagree = who.disagree || who.key != nil && who.key.app != k.app
	if who.key == nil || !who.key.usable(who.at) {
		who.key = k
	}
	if !slices.Contains(who.known[:who.distinct], text) {
		who.known[who.distinct] = text
		who.distinct++
	}
	return true
}

// find finds out who calls. It returns the key or, without one, the application; else why
// neither is known.
func (f *Filter) find(b *book, x *filter.Exchange, who *caller) (*app, filter.Verdict) {
	who.at = x.Start
	if f.places.keyed {
		f.places.identify(b, x, who)
	}
	switch k := who.key; {
	case who.disagree:
		return nil, f.unknown(conflicting)
	case k != nil && k.revoked:
		return nil, f.unknown(keyRevoked)
	case k != nil && k.expired(x.Start):
		return nil, f.unknown(keyExpired)
	case k != nil && !k.app.approved:
		return nil, f.unknown(appNotApproved)
	case k != nil:
		return k.app, filter.Next
	}
	return f.findWithoutKey(b, x, who)
}

// findWithoutKey is for requests that brought none of our keys.
func (f *Filter) findWithoutKey(b *book, x *filter.Exchange, who *caller) (*app, filter.Verdict) {
	if f.identity.twice(x) {
		return nil, f.refuse(identityTwice)
	}
	if name := f.identity.value(x); name != "" {
		a := b.apps[name]
		switch {
		case a != nil && !a.approved:
			return nil, f.unknown(appNotApproved)
		case a != nil:
			return a, filter.Next
		case !b.listed:
			return &app{name: strings.Clone(name), approved: true}, filter.Next
		}
		return nil, f.unknown(unknownApp)
	}
	switch {
	case who.keys > 0:
		return nil, f.unknown(keyInvalid)
	case f.anonymous == nil:
		return nil, f.unknown(keyMissing)
	}
	a := b.apps[f.anonymous.name]
	switch {
	case a == nil:
		a = f.anonymous // the companion does not know it
	case !a.approved:
		return nil, f.unknown(appNotApproved)
	}
	return a, filter.Next
}

// value returns who calls by the word of a filter before Inlet, "" if it says nothing.
func (i *identity) value(x *filter.Exchange) string {
	if i.header != "" {
		value, _ := x.RequestHeaders.Get(i.header)
		return strings.TrimSpace(value)
	}
	return x.Metadata
}

// twice reports whether the header has several lines. The filter before Inlet then added its own to the client's, and
// nobody can tell which is which.
func (i *identity) twice(x *filter.Exchange) bool {
	if i.header == "" {
		return false
	}
	_, ok := x.RequestHeaders.At(i.header, 1)
	return ok
}

// cutBearer takes the token out of an Authorization header (RFC 6750, 2.1).
func cutBearer(v string) (string, bool) {
	const scheme = "bearer "
	if len(v) < len(scheme) || !strings.EqualFold(v[:len(scheme)], scheme) {
		return "", false
	}
	return strings.TrimSpace(v[len(scheme):]), true
}

// unescaped undoes percent-escapes.
func unescaped(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for at := 0; at < len(s); {
		c, n := unescape(s[at:])
		b = append(b, c)
		at += n
	}
	return string(b)
}
