// Package quota decides who may call. So far it checks API keys; quotas and token
// buckets per key belong here too.
package quota

import (
	"crypto/sha256"
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Filter checks API keys. It writes x.Tenant.
type Filter struct {
	filter.Base
	places  []string          // headers in which a key is accepted
	hides   []string          // headers that must not carry any caller's key to the replica; they include places
	where   string            // the places, in words
	tenants map[digest]string // name by digest of the key
}

// maxKeys limits how many keys of one request are looked up. A client has one and may
// send it in each place; a client without a key must not make us hash for long.
const maxKeys = 16

// caller is the owner of a request's keys.
type caller struct {
	name     string // "" if no key is known
	keys     int    // number of values where keys belong, known or not
	disagree bool   // two keys belong to different callers
	known    [maxKeys]string
	distinct int // length of known, which has the caller's keys, each once
}

// OnRequestHeaders refuses callers without a known key before a byte of the body is
// buffered, and removes the key before the replica gets the request, wherever the
// client put it.
func (f *Filter) OnRequestHeaders(x *filter.Exchange) filter.Verdict {
	var who caller
	f.identify(x.RequestHeaders, &who)
	switch {
	case who.disagree:
		return refuse("conflicting_api_keys", "You provided API keys of two different callers. Provide one key, as "+f.where+".")
	case who.keys == 0:
		return refuse("missing_api_key", "You didn't provide an API key. Provide your API key as "+f.where+".")
	case who.name == "":
		return refuse("invalid_api_key", "Incorrect API key provided. Provide your API key as "+f.where+".")
	}
	f.hide(x, who.known[:who.distinct])
	x.Tenant = filter.Tenant{Name: who.name}
	x.Explain("quota", who.name)
	return filter.Next
}

// identify looks in every place. A value that is not one of our keys may be a
// credential for the service behind Inlet, so it does not matter if there is also a
// key.
func (f *Filter) identify(h filter.Headers, who *caller) {
	for _, header := range f.places {
		for n := 0; ; n++ {
			value, ok := h.At(header, n)
			if !ok {
				break
			}
			if f.take(who, header, value) || strings.IndexByte(value, ',') < 0 {
				continue
			}
			// Proxies join the values of two lines.
			for part := range strings.SplitSeq(value, ",") {
				f.take(who, header, part)
			}
		}
	}
}

// take reads one value of a place and reports whether it is a key.
func (f *Filter) take(who *caller, header, value string) bool {
	key := strings.TrimSpace(value)
	if hasScheme(header) {
		key, _ = cutBearer(key)
	}
	if key == "" || who.keys == maxKeys {
		return false
	}
	who.keys++
	name, ok := f.lookup(key)
	if !ok {
		return false
	}
	who.disagree = who.disagree || who.name != "" && who.name != name
	who.name = name
	if !slices.Contains(who.known[:who.distinct], key) {
		who.known[who.distinct] = key
		who.distinct++
	}
	return true
}

// lookup returns the owner of a key. The timing of a look-up by digest reveals nothing
// useful: an attacker cannot control the digest of a guess.
func (f *Filter) lookup(key string) (name string, ok bool) {
	name, ok = f.tenants[sha256.Sum256([]byte(key))]
	return name, ok
}

// hasScheme reports whether a header begins with the name of a scheme (RFC 9110, 11.4).
func hasScheme(header string) bool {
	return header == "authorization" || header == "proxy-authorization"
}

// cutBearer takes the token out of an Authorization header (RFC 6750, 2.1).
func cutBearer(v string) (string, bool) {
	const scheme = "bearer "
	if len(v) < len(scheme) || !strings.EqualFold(v[:len(scheme)], scheme) {
		return "", false
	}
	return strings.TrimSpace(v[len(scheme):]), true
}

func refuse(code, message string) filter.Verdict {
	return filter.Deny(filter.Refusal{Refusal: llm.Refusal{
		Status: 401, Type: "invalid_request_error", Code: code, Message: message,
	}})
}
