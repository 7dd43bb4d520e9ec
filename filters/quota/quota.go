// Package quota says who may call. So far it checks API keys; quotas and token
// buckets per key belong here too.
package quota

import (
	"crypto/sha256"
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Filter checks API keys. Writes x.Tenant.
type Filter struct {
	filter.Base
	places  []string          // headers in which a key counts
	hides   []string          // headers that never bring anybody's key to the replica; places are among them
	where   string            // the places, for people
	tenants map[digest]string // name by key
}

// maxKeys bounds how many keys of one request are looked up. A client has one,
// and may say it in each place; who has none must not make us hash for long.
const maxKeys = 16

// caller is who the keys of a request belong to.
type caller struct {
	name     string // "" if no key is known
	keys     int    // that stand where keys belong, known or not
	disagree bool   // two keys belong to different callers
	known    [maxKeys]string
	distinct int // of known: the caller's keys, each once
}

// OnRequestHeaders refuses callers without a known key before a byte of body
// is buffered, and keeps the key from the replica, wherever the client put it.
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

// identify looks in every place. What is no key of ours may be the credential of
// the service behind, so that it neither helps nor harms beside a key that is one.
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
			// Proxies join what stands on two lines.
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

// lookup returns whose key it is. Looking up the digest leaks nothing useful by
// its timing: an attacker cannot steer the digest of a guess.
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
