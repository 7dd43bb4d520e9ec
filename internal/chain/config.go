package chain

import (
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Defaults and bounds of the document's chain-wide settings.
const (
	DefaultBodyLimit = 16 << 20
	// DefaultPromptLimit bounds the time that screening a prompt may take away
	// from the other requests of a worker; see guardrail.
	DefaultPromptLimit = 128 << 10
	// DefaultResponseLimit bounds what of a response is withheld while it is screened.
	DefaultResponseLimit = 4 << 20
	maxBodyLimit         = 1 << 30
	maxPromptLimit       = 64 << 20
)

// settings are the chain-wide part of the document.
type settings struct {
	bodyLimit     int64
	promptLimit   int64
	responseLimit int64
	prefixLimit   int64
	jsonLimits    jsonscan.Limits
	pathPrefix    []string
	paths         []llm.Operation // besides the standard ones, and before them
	countTokens   bool
	trustControl  bool
	passThrough   []string
	companion     Companion
}

// New reads the configuration document (YAML or JSON, strict) and makes the
// chain. The error is a conf.Errors with every mistake at once. New does no I/O.
func New(doc []byte, known []filter.Factory, deps *filter.Deps, options ...Option) (*Chain, error) {
	c := newChain(deps, options)
	hash := fnv.New64a()
	_, _ = hash.Write(doc) // never fails
	c.id = hash.Sum64()
	if err := checkText(doc); err != nil {
		return nil, err
	}
	warn := func(w conf.Error) { c.deps.Log(filter.Warn, "configuration: "+w.Error()) }
	if err := conf.DecodeWarn(doc, warn, func(o *conf.Object) { c.read(o, known) }); err != nil {
		return nil, err
	}
	c.finish()
	return c, nil
}

// newChain is a chain without filters, with the default settings.
func newChain(deps *filter.Deps, options []Option) *Chain {
	own := *deps
	c := &Chain{deps: &own, control: slices.Clone(filter.ControlHeaders), settings: settings{
		bodyLimit:     DefaultBodyLimit,
		promptLimit:   DefaultPromptLimit,
		responseLimit: DefaultResponseLimit,
		prefixLimit:   llm.DefaultPrefixBlocks * llm.PrefixBlockBytes,
		jsonLimits:    jsonscan.DefaultLimits,
		countTokens:   true,
		companion:     Companion{Wait: 20 * time.Second},
	}}
	own.ClaimHeader, own.Routes = c.claim, nil
	c.redirects.mutex = own.Mutex()
	for _, option := range options {
		option(c)
	}
	return c
}

func (c *Chain) read(o *conf.Object, known []filter.Factory) {
	c.readSettings(o) // filters ask for the companion
	c.link()
	c.readFilters(o, known)
}

// claim implements filter.Deps.ClaimHeader.
func (c *Chain) claim(name string) {
	if !slices.Contains(c.control, name) {
		c.control = append(c.control, name)
	}
}

func (c *Chain) readSettings(o *conf.Object) {
	o.Object("limits", func(o *conf.Object) {
		o.Size("body", &c.bodyLimit, 1, maxBodyLimit)
		o.Size("prompt", &c.promptLimit, 1, maxPromptLimit)
		o.Size("response", &c.responseLimit, 1, maxBodyLimit)
		o.Size("prefix", &c.prefixLimit, llm.PrefixBlockBytes, maxPromptLimit)
		l := &c.jsonLimits
		o.Int("depth", &l.Depth, 1, jsonscan.MaxDepth)
		o.Int("keyLength", &l.KeyBytes, 1, jsonscan.MaxKeyBytes)
		length := int64(l.StringBytes)
		o.Size("stringLength", &length, 1, maxBodyLimit)
		l.StringBytes = int(length)
		o.Int("members", &l.Members, 1, math.MaxInt32)
		o.Int("items", &l.Items, 1, math.MaxInt32)
	})
	o.Strings("pathPrefix", &c.pathPrefix, conf.PathPrefix)
	o.List("paths", func(v *conf.Value) { v.Object(c.readPath) })
	control := "remove"
	o.Bool("countTokens", &c.countTokens)
	o.Enum("controlHeaders", &control, "remove", "trust")
	c.trustControl = control == "trust"
	o.Strings("passThrough", &c.passThrough, conf.PathPrefix)
	o.Object("companion", c.readCompanion)
}

// readPath reads a path that a server has besides the standard ones, and which of them is asked in the same form.
func (c *Chain) readPath(o *conf.Object) {
	var op llm.Operation
	var api string
	o.String("path", &op.Path, conf.PathPrefix, justPath)
	o.Enum("api", &api, llm.Names()...)
	o.Required("path", "api")
	if slices.ContainsFunc(c.paths, func(other llm.Operation) bool { return other.Path == op.Path }) {
		o.Errorf("path", "%q is listed twice", op.Path)
	}
	op.API = llm.Named(api)
	c.paths = append(c.paths, op)
}

// justPath refuses what never is in a path that a request is compared with.
func justPath(s string) string {
	if strings.ContainsAny(s, "?#*{}") {
		return "is not a plain path; paths are compared exactly"
	}
	return ""
}

func (c *Chain) readFilters(o *conf.Object, known []filter.Factory) {
	o.Required("filters")
	n := 0
	o.List("filters", func(v *conf.Value) {
		n++
		v.OneOf("filter", namesOf(known), func(name string, v *conf.Value) {
			v.Object(func(o *conf.Object) { c.add(o, &known[indexOf(known, name)]) })
		})
	})
	if o.Has("filters") && n == 0 {
		o.Errorf("filters", "needs at least one filter")
	}
	c.checkOrder(o)
	c.collectFields(o)
}

// collectFields asks the filters which members of the body they read by name.
func (c *Chain) collectFields(o *conf.Object) {
	named := 0
	for i := range c.slots {
		reader, ok := c.slots[i].filter.(filter.FieldReader)
		if !ok {
			continue
		}
		for _, name := range reader.Fields() {
			if slices.Contains(c.fields, name) {
				continue
			}
			c.fields = append(c.fields, name)
			if !slices.Contains(llm.Partitions[:], name) {
				named++
			}
		}
	}
	if named > llm.MaxFields {
		o.Errorf("filters", "read %d members of the body by name; at most %d can be", named, llm.MaxFields)
	}
}

// add makes one filter of the chain from its configuration object.
func (c *Chain) add(o *conf.Object, f *filter.Factory) {
	for _, s := range c.slots {
		if s.name == f.Name {
			o.Errorf("", "filter %q stands in the chain twice", f.Name)
			return
		}
	}
	mode := string(f.FailureMode)
	o.Enum("failureMode", &mode, string(filter.FailOpen), string(filter.FailClosed))
	c.slots = append(c.slots, slot{
		name:     f.Name,
		factory:  f,
		failOpen: mode == string(filter.FailOpen),
		filter:   f.New(o, c.deps),
	})
	c.adoptConversations(f.Name)
}

// checkOrder refuses a chain in which a filter reads a fact that a later one writes.
func (c *Chain) checkOrder(o *conf.Object) {
	for i, reader := range c.slots {
		reads := reader.factory.Reads
		if r, ok := reader.filter.(filter.FactReader); ok {
			reads |= r.Reads()
		}
		for _, writer := range c.slots[i+1:] {
			if reads&writer.factory.Writes != 0 {
				o.Errorf("filters", "%q must stand before %q, which uses what it decides", writer.name, reader.name)
			}
		}
	}
}

func indexOf(known []filter.Factory, name string) int {
	for i := range known {
		if known[i].Name == name {
			return i
		}
	}
	return -1
}

func namesOf(known []filter.Factory) []string {
	names := make([]string, len(known))
	for i := range known {
		names[i] = known[i].Name
	}
	return names
}

// String names the filters in order, for the log line at start.
func (c *Chain) String() string {
	var b strings.Builder
	for i, s := range c.slots {
		if i > 0 {
			b.WriteString(" → ")
		}
		fmt.Fprintf(&b, "%s(%s)", s.name, s.mode())
	}
	return b.String()
}
