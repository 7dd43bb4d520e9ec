package quota

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// digest is the SHA-256 of a key. Keys are kept by their digest, so that neither Envoy's
// config dump nor the companion's files contain a key.
type digest [sha256.Size]byte

// book says who may call, and what: keys, applications, developers and products. It is
// immutable; a new one takes its place.
type book struct {
	keys     map[digest]*key
	apps     map[string]*app
	listed   bool       // applications are listed: no other name is one
	products []*product // nil: everybody who is known may do everything
}

// key is one API key.
type key struct {
	name     string
	app      *app
	products []subscription // empty: those of the app
	expires  time.Time      // zero: never
	revoked  bool
}

func (k *key) expired(now time.Time) bool { return !k.expires.IsZero() && !now.Before(k.expires) }

// usable reports whether the key is good for anything.
func (k *key) usable(now time.Time) bool { return !k.revoked && !k.expired(now) }

// app is an application: it owns keys, belongs to a developer and subscribes to products.
type app struct {
	name, developer string
	approved        bool
	products        []subscription
}

// subscription is a product that an application or a key asks for.
type subscription struct {
	product  *product
	approved bool
}

// lookup returns the key with that text, nil if there is none. The time that a look-up by
// digest takes reveals nothing useful: an attacker cannot control the digest of a guess. So
// no comparison of the text itself is needed.
func (b *book) lookup(text string) *key { return b.keys[sha256.Sum256([]byte(text))] }

// subscriptions are those that count for a key: its own, or those of its app.
func (k *key) subscriptions() []subscription {
	if len(k.products) > 0 {
		return k.products
	}
	return k.app.products
}

// bookReader reads a book: from the configuration, or from the document that the companion sends.
type bookReader struct {
	b          *book
	products   []string
	developers []string
	elsewhere  bool      // keys and products come from the companion
	now        time.Time // when this is read; zero: nothing has expired
}

func newBookReader() *bookReader {
	return &bookReader{b: &book{keys: map[digest]*key{}, apps: map[string]*app{}}}
}

// read reads what others refer to before what refers to it.
func (r *bookReader) read(o *conf.Object) {
	o.List("products", func(v *conf.Value) { v.Object(r.addProduct) })
	o.List("developers", func(v *conf.Value) { v.Object(r.addDeveloper) })
	r.b.listed = o.List("apps", func(v *conf.Value) { v.Object(r.addApp) })
}

func (r *bookReader) addProduct(o *conf.Object) {
	p := readProduct(o)
	if p.name == "" {
		return // reported by the check
	}
	if r.product(p.name) != nil {
		o.Errorf("name", "product %q is listed twice", p.name)
		return
	}
	r.b.products = append(r.b.products, p)
	r.products = append(r.products, p.name)
}

// product returns the product of a name, nil if there is none.
func (r *bookReader) product(name string) *product {
	for _, p := range r.b.products {
		if p.name == name {
			return p
		}
	}
	return nil
}

func (r *bookReader) addDeveloper(o *conf.Object) {
	var name string
	o.String("name", &name, conf.NotEmpty, shortName)
	o.Required("name")
	r.developers = append(r.developers, name)
}

func (r *bookReader) addApp(o *conf.Object) {
	a, status := &app{}, approved
	o.String("name", &a.name, conf.NotEmpty, shortName)
	o.Required("name")
	if o.String("developer", &a.developer, conf.NotEmpty, shortName) && !slices.Contains(r.developers, a.developer) && a.developer != "" {
		o.Errorf("developer", "there is no developer %q%s", a.developer, conf.Suggest(a.developer, r.developers))
	}
	o.Enum("status", &status, approved, pending, revoked)
	a.approved = status == approved
	a.products = r.readSubscriptions(o)
	if r.b.apps[a.name] != nil {
		o.Errorf("name", "app %q is listed twice", a.name)
	}
	r.b.apps[a.name] = a
}

// States of an application, a subscription and a key.
const (
	approved = "approved"
	pending  = "pending"
	revoked  = "revoked"
	active   = "active"
)

// readSubscriptions reads "products": names, or names with a status.
func (r *bookReader) readSubscriptions(o *conf.Object) (all []subscription) {
	o.List("products", func(v *conf.Value) {
		var name, status string
		v.Either(func(o *conf.Object) {
			o.String("name", &name, conf.NotEmpty)
			o.Enum("status", &status, approved, pending, revoked)
			o.Required("name")
		}, func(v *conf.Value) { v.String(&name, conf.NotEmpty) })
		if name == "" {
			return
		}
		p := r.product(name)
		if p == nil {
			v.Errorf("there is no product %q%s", name, conf.Suggest(name, r.products))
			return
		}
		all = append(all, subscription{p, status == approved || status == "" && !p.manual})
	})
	return all
}

// addKey reads one key. Without an app it is an application of its own, with the key's name.
func (r *bookReader) addKey(o *conf.Object) {
	k, sum, appName, status, expires := &key{}, "", "", active, ""
	o.String("name", &k.name, conf.NotEmpty, shortName)
	o.String("sha256", &sum, isDigest)
	o.Required("name", "sha256")
	if o.String("app", &appName, conf.NotEmpty, shortName) && r.b.listed && r.b.apps[appName] == nil && appName != "" {
		o.Errorf("app", "there is no app %q%s", appName, conf.Suggest(appName, names(r.b.apps)))
	}
	k.products = r.readSubscriptions(o)
	if o.String("expires", &expires, isTime) && expires != "" {
		k.expires, _ = time.Parse(time.RFC3339, expires) // checked
	}
	o.Enum("status", &status, active, revoked)
	k.revoked = status == revoked
	if appName == "" {
		appName = k.name
	}
	k.app = r.appOf(appName)
	r.warnOfKey(o, k)
	var d digest
	if n, err := hex.Decode(d[:], []byte(sum)); err != nil || n != len(d) {
		return // reported by the check
	}
	if other := r.b.keys[d]; other != nil {
		o.Errorf("sha256", "is also the key of %q", other.name)
	}
	r.b.keys[d] = k
}

// appOf returns the application of a name, and makes one that nothing more is known of.
func (r *bookReader) appOf(name string) *app {
	a := r.b.apps[name]
	if a == nil {
		a = &app{name: name, approved: true}
		r.b.apps[name] = a
	}
	return a
}

func isDigest(s string) string {
	if b, err := hex.DecodeString(s); err != nil || len(b) != sha256.Size {
		return "is not a SHA-256 in hex (64 digits; make one with: printf %s KEY | sha256sum)"
	}
	return ""
}

func isTime(s string) string {
	if _, err := time.Parse(time.RFC3339, s); err != nil {
		return "is not a time such as 2027-01-01T00:00:00Z"
	}
	return ""
}

// maxShortName bounds names: several of them make the name of an account.
const maxShortName = 64

func shortName(s string) string {
	if len(s) > maxShortName {
		return "is longer than 64 bytes"
	}
	return ""
}
