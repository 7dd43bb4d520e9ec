package quota

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/filters/quota"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

// Directory is who may call: developers own apps, apps own keys, and both name products. Its form is that of the same keys in the
// configuration of the filter quota, which it takes the place of. It is immutable.
type Directory struct {
	Developers []Developer `json:"developers"`
	Apps       []App       `json:"apps"`
	Keys       []Key       `json:"keys"`
	Products   []Product   `json:"products"`
}

// Developer owns apps.
type Developer struct {
	Name string `json:"name"`
}

// App owns keys, and has a product's limits for itself.
type App struct {
	Name      string         `json:"name"`
	Developer string         `json:"developer,omitempty"`
	Products  []Subscription `json:"products,omitempty"`
	Status    string         `json:"status"`
}

// Key is an API key without the key.
type Key struct {
	Name     string         `json:"name"`
	SHA256   string         `json:"sha256"`
	App      string         `json:"app,omitempty"`
	Products []Subscription `json:"products,omitempty"` // none: those of the app
	Expires  *time.Time     `json:"expires,omitempty"`
	Status   string         `json:"status"`
}

// Subscription is a product that an app or a key asks for. Without a status it is approved if the product's approval is auto.
type Subscription struct {
	Name   string
	Status string
}

// MarshalJSON writes the name alone if there is no status.
func (s Subscription) MarshalJSON() ([]byte, error) {
	if s.Status == "" {
		return json.Marshal(s.Name)
	}
	return json.Marshal(map[string]string{"name": s.Name, "status": s.Status})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Subscription) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '"' {
		return json.Unmarshal(text, &s.Name)
	}
	var v struct{ Name, Status string }
	err := json.Unmarshal(text, &v)
	*s = v
	return err
}

// Product is what a key may call, and how much of it.
type Product struct {
	Name        string      `json:"name"`
	Approval    string      `json:"approval"`
	Operations  []Operation `json:"operations,omitempty"`
	Models      []string    `json:"models,omitempty"`
	Zone        string      `json:"zone,omitempty"`
	Start       string      `json:"start,omitempty"`
	Scope       string      `json:"scope,omitempty"`
	Requests    string      `json:"requests,omitempty"`
	Tokens      *Tokens     `json:"tokens,omitempty"`
	Concurrency int         `json:"concurrency,omitempty"`
	Spike       string      `json:"spike,omitempty"`
	Budget      string      `json:"budget,omitempty"`
}

// Operation is a path, or the beginning of one, with methods.
type Operation struct {
	Path       string   `json:"path,omitempty"`
	PathPrefix string   `json:"pathPrefix,omitempty"`
	Methods    []string `json:"methods,omitempty"`
}

// Tokens are limits for tokens.
type Tokens struct {
	Total        string   `json:"total,omitempty"`
	Prompt       string   `json:"prompt,omitempty"`
	Completion   string   `json:"completion,omitempty"`
	CachedWeight *float64 `json:"cachedWeight,omitempty"`
}

// Words of status and approval.
const (
	Approved = "approved"
	Pending  = "pending"
	Revoked  = "revoked"
	Active   = "active"
	Auto     = "auto"
	Manual   = "manual"
)

// ParseDirectory reads a directory, in YAML or JSON.
func ParseDirectory(text []byte) (*Directory, error) {
	d := new(Directory)
	if err := conf.Decode(text, d.read); err != nil {
		return nil, err
	}
	// The filter has the last word: it is what reads the directory in the proxies.
	if err := quota.CheckText(text); err != nil {
		return nil, err
	}
	// What is sent says more than the text: defaults, and the words of JSON.
	document, _ := d.encode()
	if err := quota.CheckDocument(document); err != nil {
		return nil, fmt.Errorf("as it is sent to proxies: %w", err)
	}
	return d, nil
}

func (d *Directory) read(o *conf.Object) {
	readEach(o, "products", &d.Products, (*Product).read)
	readEach(o, "developers", &d.Developers, (*Developer).read)
	readEach(o, "apps", &d.Apps, (*App).read)
	readEach(o, "keys", &d.Keys, (*Key).read)
	for _, f := range d.faults() {
		o.Errorf(f.list, "%s", f.text)
	}
}

// named is an entry of a list in a directory.
type named interface{ name() string }

func (d Developer) name() string { return d.Name }
func (a App) name() string       { return a.Name }
func (k Key) name() string       { return k.Name }
func (p Product) name() string   { return p.Name }

func readEach[T named](o *conf.Object, list string, into *[]T, read func(*T, *conf.Object)) {
	o.List(list, func(v *conf.Value) {
		var item T
		v.Object(func(o *conf.Object) {
			o.Required("name")
			read(&item, o)
			if item.name() != "" && find(*into, item.name()) >= 0 {
				o.Errorf("name", "%q is listed twice", item.name())
			}
		})
		*into = append(*into, item)
	})
}

// find returns the index of the entry with a name, -1 if there is none.
func find[T named](list []T, name string) int {
	return slices.IndexFunc(list, func(item T) bool { return item.name() == name })
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

func isName(s string) string {
	if !nameForm.MatchString(s) {
		return "is not a name (letters, digits, \".\", \"_\", \"@\" and \"-\", at most 64, and first a letter or a digit)"
	}
	return ""
}

func (d *Developer) read(o *conf.Object) { o.String("name", &d.Name, isName) }

func (a *App) read(o *conf.Object) {
	o.String("name", &a.Name, isName)
	o.String("developer", &a.Developer, isName)
	a.Products = readSubscriptions(o)
	a.Status = Approved
	o.Enum("status", &a.Status, Approved, Pending, Revoked)
}

func (k *Key) read(o *conf.Object) {
	o.Required("sha256")
	o.String("sha256", &k.SHA256, isDigest)
	k.SHA256 = strings.ToLower(k.SHA256)
	k.readRest(o)
}

// readRest reads what is said of a key that is to be made.
func (k *Key) readRest(o *conf.Object) {
	k.Status = Active
	o.String("name", &k.Name, isName)
	o.String("app", &k.App, isName)
	k.Products = readSubscriptions(o)
	o.Enum("status", &k.Status, Active, Revoked)
	var expires string
	if o.String("expires", &expires, isTime) {
		if t, err := time.Parse(time.RFC3339, expires); err == nil {
			k.Expires = &t
		}
	}
}

func readSubscriptions(o *conf.Object) (all []Subscription) {
	o.List("products", func(v *conf.Value) {
		var s Subscription
		v.Either(func(o *conf.Object) {
			o.Required("name")
			o.String("name", &s.Name, isName)
			o.Enum("status", &s.Status, Approved, Pending, Revoked)
		}, func(v *conf.Value) { v.String(&s.Name, isName) })
		all = append(all, s)
	})
	return all
}

func isDigest(s string) string {
	if b, err := hex.DecodeString(s); err != nil || len(b) != sha256.Size {
		return "is not a SHA-256 in hex (64 digits; make one with: printf %s KEY | sha256sum)"
	}
	return ""
}

func isTime(s string) string {
	if _, err := time.Parse(time.RFC3339, s); err != nil {
		return "is not a time such as 2027-01-31T00:00:00Z"
	}
	return ""
}

func (p *Product) read(o *conf.Object) {
	p.Approval = Auto
	o.String("name", &p.Name, isName)
	o.Enum("approval", &p.Approval, Auto, Manual)
	o.List("operations", func(v *conf.Value) {
		var op Operation
		v.Object(func(o *conf.Object) {
			o.String("path", &op.Path, conf.PathPrefix)
			o.String("pathPrefix", &op.PathPrefix, conf.PathPrefix)
			o.Strings("methods", &op.Methods, conf.NotEmpty)
			if o.Has("path") == o.Has("pathPrefix") {
				o.Errorf("", "want either path or pathPrefix")
			}
		})
		p.Operations = append(p.Operations, op)
	})
	o.Strings("models", &p.Models, conf.NotEmpty)
	o.String("zone", &p.Zone, isZone)
	o.String("start", &p.Start, isStart)
	o.Enum("scope", &p.Scope, "shared", "local")
	o.String("requests", &p.Requests, isRate)
	o.Object("tokens", func(o *conf.Object) {
		p.Tokens = new(Tokens)
		o.String("total", &p.Tokens.Total, isRate)
		o.String("prompt", &p.Tokens.Prompt, isRate)
		o.String("completion", &p.Tokens.Completion, isRate)
		var weight float64
		if o.Float("cachedWeight", &weight, 0, 1) {
			p.Tokens.CachedWeight = &weight
		}
	})
	o.Int("concurrency", &p.Concurrency, 1, math.MaxInt32)
	o.String("spike", &p.Spike, isRate)
	o.String("budget", &p.Budget, isBudget)
}

// nano is the number of units in 1 of a currency.
const nano = 1_000_000_000

func isRate(s string) string { return isRates(s, 1) }

func isBudget(s string) string { return isRates(s, nano) }

// isRates accepts one or several amounts per time, such as "5/min, 1000/day".
func isRates(s string, scale int64) string {
	for rate := range strings.SplitSeq(s, ",") {
		if _, _, problem := account.ParseDecimalRate(strings.TrimSpace(rate), scale); problem != "" {
			return problem
		}
	}
	return ""
}

func isZone(s string) string {
	if _, err := time.LoadLocation(s); err != nil || s == "" || s == "Local" {
		return "is not a time zone such as Europe/Berlin"
	}
	return ""
}

func isStart(s string) string {
	if s == "calendar" || s == "flexi" {
		return ""
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return "is neither calendar, flexi, nor a time such as 2027-01-01T00:00:00Z"
	}
	// The window has to be readable where proxies send it.
	if _, err := account.ParseWindow(fmt.Sprintf("1d from=%d", at.UnixMilli())); err != nil {
		return "is not between 1970 and September 2248"
	}
	return ""
}

// fault is an entry that does not fit the others.
type fault struct{ list, text string }

// faults checks what entries say of each other.
func (d *Directory) faults() (all []fault) {
	add := func(list, format string, args ...any) { all = append(all, fault{list, fmt.Sprintf(format, args...)}) }
	products := func(list, who string, subscriptions []Subscription) {
		for _, s := range subscriptions {
			if s.Name != "" && find(d.Products, s.Name) < 0 {
				add(list, "%s: there is no product %q%s", who, s.Name, suggest(s.Name, d.Products))
			}
		}
	}
	for _, a := range d.Apps {
		if a.Developer != "" && find(d.Developers, a.Developer) < 0 {
			add("apps", "app %q: there is no developer %q%s", a.Name, a.Developer, suggest(a.Developer, d.Developers))
		}
		products("apps", fmt.Sprintf("app %q", a.Name), a.Products)
	}
	digests := make(map[string]string, len(d.Keys))
	for _, k := range d.Keys {
		if k.App != "" && find(d.Apps, k.App) < 0 {
			add("keys", "key %q: there is no app %q%s", k.Name, k.App, suggest(k.App, d.Apps))
		}
		products("keys", fmt.Sprintf("key %q", k.Name), k.Products)
		if other, ok := digests[k.SHA256]; ok && k.SHA256 != "" {
			add("keys", "keys %q and %q are the same key", other, k.Name)
		}
		digests[k.SHA256] = k.Name
	}
	return all
}

// suggest returns what may have been meant.
func suggest[T named](word string, among []T) string {
	names := make([]string, len(among))
	for i, item := range among {
		names[i] = item.name()
	}
	return conf.Suggest(word, names)
}

// encode returns the document that proxies get, and its version: a number made of the content, so that two companions with the same
// content have the same version.
func (d *Directory) encode() (document []byte, version int64) {
	full := *d
	full.Developers, full.Apps = append([]Developer{}, d.Developers...), append([]App{}, d.Apps...) // a list, if an empty one, and never null
	full.Keys, full.Products = append([]Key{}, d.Keys...), append([]Product{}, d.Products...)
	document, err := json.Marshal(full)
	if err != nil {
		panic(err) // there is nothing in it that has no JSON
	}
	return document, versionOf(document)
}

// versionOf is between 1 and 2^53, which every reader of JSON reads exactly.
func versionOf(document []byte) int64 {
	sum := sha256.Sum256(document)
	v := int64(0)
	for _, b := range sum[:7] {
		v = v<<8 | int64(b)
	}
	return v&(1<<53-1) | 1
}

// clone returns a copy of which the lists can be changed.
func (d *Directory) clone() *Directory {
	return &Directory{
		Developers: slices.Clone(d.Developers), Apps: slices.Clone(d.Apps), Keys: slices.Clone(d.Keys), Products: slices.Clone(d.Products),
	}
}
