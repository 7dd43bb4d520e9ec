package quota

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Factory makes the filter "quota".
var Factory = filter.Factory{
	Name:        "quota",
	Writes:      filter.FactTenant,
	Strict:      true,
	FailureMode: filter.FailClosed,
	New:         newFilter,
	Help:        help,
}

// digest is the SHA-256 of a key. Keys are configured by their digest, so that Envoy's
// config dump contains no key.
type digest [sha256.Size]byte

func newFilter(o *conf.Object, _ *filter.Deps) filter.Filter {
	f := &Filter{tenants: map[digest]string{}}
	o.Required("keys")
	o.Object("keys", func(o *conf.Object) {
		f.readPlaces(o)
		o.Required("list")
		n := 0
		o.List("list", func(v *conf.Value) {
			n++
			v.Object(func(o *conf.Object) { f.addKey(o) })
		})
		if o.Has("list") && n == 0 {
			o.Errorf("list", "needs at least one key; otherwise every request is refused")
		}
	})
	return f
}

// carriers are the headers in which clients of model APIs (OpenAI's, Anthropic's,
// Azure's, Google's) or proxies send keys. None of them may carry one of our keys to a
// replica, whether the caller's or another's.
var carriers = []string{"x-api-key", "authorization", "api-key", "x-goog-api-key", "apikey", "proxy-authorization"}

// readPlaces reads in which headers a key is accepted. "header" is the older spelling, for one header.
func (f *Filter) readPlaces(o *conf.Object) {
	f.places = []string{"x-api-key", "authorization"}
	var header string
	switch alone := o.String("header", &header, conf.HeaderName); {
	case o.Strings("from", &f.places, conf.HeaderName):
		if alone {
			o.Errorf("header", "is the older spelling of \"from\"; set only one of them")
		}
		if len(f.places) == 0 {
			o.Errorf("from", "needs at least one header")
		}
	case alone:
		f.places = []string{header}
	}
	f.hides = slices.Clone(carriers)
	said := make([]string, len(f.places))
	for i, place := range f.places {
		if slices.Contains(f.places[:i], place) {
			o.Errorf("from", "%q is listed twice", place)
		}
		if !slices.Contains(f.hides, place) {
			f.hides = append(f.hides, place)
		}
		said[i] = place + ": YOUR_KEY"
		if hasScheme(place) {
			said[i] = place + ": Bearer YOUR_KEY"
		}
	}
	f.where = strings.Join(said, " or ")
}

func (f *Filter) addKey(o *conf.Object) {
	var name, sum string
	o.String("name", &name, conf.NotEmpty)
	o.String("sha256", &sum, isDigest)
	o.Required("name", "sha256")
	var d digest
	if n, err := hex.Decode(d[:], []byte(sum)); err != nil || n != len(d) {
		return // reported by the check
	}
	if other, ok := f.tenants[d]; ok {
		o.Errorf("sha256", "is also the key of %q", other)
	}
	f.tenants[d] = name
}

func isDigest(s string) string {
	if b, err := hex.DecodeString(s); err != nil || len(b) != sha256.Size {
		return "is not a SHA-256 in hex (64 digits; make one with: printf %s KEY | sha256sum)"
	}
	return ""
}
