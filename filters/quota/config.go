package quota

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/inlet-proxy/inlet/shared/conf"
	"github.com/inlet-proxy/inlet/shared/filter"
)

// Factory makes the filter "quota".
var Factory = filter.Factory{
	Name:        "quota",
	Writes:      filter.FactTenant,
	Strict:      true,
	FailureMode: filter.FailClosed,
	New:         newFilter,
}

// digest is the SHA-256 of a key. Keys are configured by their digest, so that
// a config dump of Envoy shows none.
type digest [sha256.Size]byte

func newFilter(o *conf.Object, _ *filter.Deps) filter.Filter {
	f := &Filter{header: "x-api-key", tenants: map[digest]string{}}
	o.Required("keys")
	o.Object("keys", func(o *conf.Object) {
		o.String("header", &f.header, conf.HeaderName)
		o.Required("list")
		n := 0
		o.List("list", func(v *conf.Value) {
			n++
			v.Object(func(o *conf.Object) { f.addKey(o) })
		})
		if o.Has("list") && n == 0 {
			o.Errorf("list", "needs at least one key, else every request is refused")
		}
	})
	return f
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
