// Package quota says who may call. So far it checks API keys; quotas and token
// buckets per key belong here too.
package quota

import (
	"crypto/sha256"
	"strings"

	"github.com/inlet-proxy/inlet/shared/filter"
	"github.com/inlet-proxy/inlet/shared/llm"
)

// Filter checks API keys. Writes x.Tenant.
type Filter struct {
	filter.Base
	header  string
	tenants map[digest]string // name by key
}

// OnRequestHeaders refuses callers without a known key before a byte of body
// is buffered, and keeps the key from the replica.
func (f *Filter) OnRequestHeaders(x *filter.Exchange) filter.Verdict {
	key, ok := x.RequestHeaders.Get(f.header)
	if f.header == "authorization" {
		key, ok = cutBearer(key)
	}
	if !ok || key == "" {
		return refuse("missing_api_key", "You did not provide an API key. Send it in the "+f.header+" header.")
	}
	// Looking up the digest leaks nothing useful by its timing: an attacker
	// cannot steer the digest of a guess.
	name, ok := f.tenants[sha256.Sum256([]byte(key))]
	if !ok {
		return refuse("invalid_api_key", "The API key you provided is not valid.")
	}
	x.RemoveRequestHeader(f.header)
	x.Tenant = filter.Tenant{Name: name}
	x.Explain("quota", name)
	return filter.Next
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
