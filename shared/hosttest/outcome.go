package hosttest

import (
	"fmt"
	"slices"
	"strings"
)

// Outcome is the result of one request. Every host fills it in from what a
// client, a replica and a scrape of the metrics can see.
type Outcome struct {
	// What the client got. Status 0: no answer. Complete: the answer's end too.
	Status   int
	Headers  Headers
	Body     []byte
	Trailers Headers
	Complete bool
	// Cancelled: the replica was told to stop before it had said all.
	Cancelled bool

	// Pool whose cluster got the request, and the name of the replica; "" if
	// no replica did.
	Pool    string
	Replica string
	// Arrived is what the replica got; nil if no replica got anything.
	Arrived *Arrived

	// Calls are the callouts that this step caused, without the companion's.
	Calls []Call
	// Metrics is by how much series grew, by their names as [Series] writes
	// them. Those that did not change need not be there.
	Metrics map[string]int64

	// Trap tells how a wasm VM died; "" if none did.
	Trap string
	// HostCalls counts what the plugin asked of its host for exchanges, the clock
	// among it; nil where there is no such host.
	HostCalls map[string]int
	// Why is the reason that the access log shows, "" if unknown.
	Why string
	// Log is what the gateway logged during the step.
	Log []string
}

// Arrived is a request as the replica got it.
type Arrived struct {
	Headers  Headers // with :method and :path
	Body     []byte
	Trailers Headers
}

// Call is a callout.
type Call struct {
	Cluster, Method, Path string
	Headers               Headers
	Body                  []byte
}

// Headers are names in lower case and values, in order.
type Headers [][2]string

// Get returns the first value of a header and whether it is there.
func (h Headers) Get(name string) (string, bool) { return h.At(name, 0) }

// At returns the nth value of a header, from 0, and whether it is there.
func (h Headers) At(name string, n int) (string, bool) {
	for _, kv := range h {
		if kv[0] != name {
			continue
		}
		if n == 0 {
			return kv[1], true
		}
		n--
	}
	return "", false
}

// Line returns the nth line, from 0, and whether it is there.
func (h Headers) Line(n int) (name, value string, ok bool) {
	if n >= len(h) {
		return "", "", false
	}
	return h[n][0], h[n][1], true
}

// Set makes value the only one of the header.
func (h *Headers) Set(name, value string) {
	for i, kv := range *h {
		if kv[0] == name {
			rest := slices.DeleteFunc((*h)[i+1:], func(kv [2]string) bool { return kv[0] == name })
			*h = (*h)[:i+1+len(rest)]
			(*h)[i][1] = value
			return
		}
	}
	h.Add(name, value)
}

// Add appends a value.
func (h *Headers) Add(name, value string) { *h = append(*h, [2]string{name, value}) }

// Remove deletes all values of the header.
func (h *Headers) Remove(name string) {
	*h = slices.DeleteFunc(*h, func(kv [2]string) bool { return kv[0] == name })
}

// Clone returns a copy.
func (h Headers) Clone() Headers { return slices.Clone(h) }

// String shows the outcome to a person who looks for a mistake.
func (o *Outcome) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "status %d, complete %t, pool %q, replica %q\n", o.Status, o.Complete, o.Pool, o.Replica)
	fmt.Fprintf(&b, "headers %v\nbody %s\n", o.Headers, shorten(o.Body))
	if o.Arrived != nil {
		fmt.Fprintf(&b, "arrived %v\n  body %s\n", o.Arrived.Headers, shorten(o.Arrived.Body))
	}
	for _, c := range o.Calls {
		fmt.Fprintf(&b, "call %s %s %s %s\n", c.Cluster, c.Method, c.Path, shorten(c.Body))
	}
	names := make([]string, 0, len(o.Metrics))
	for name := range o.Metrics {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "metric %s %+d\n", name, o.Metrics[name])
	}
	if o.Why != "" {
		fmt.Fprintf(&b, "why %s\n", o.Why)
	}
	for _, line := range o.Log {
		fmt.Fprintf(&b, "log %s\n", line)
	}
	if o.Trap != "" {
		fmt.Fprintf(&b, "trap %s\n", o.Trap)
	}
	return b.String()
}

// shorten quotes a body, cut to what a person reads.
func shorten(b []byte) string {
	const limit = 300
	if len(b) <= limit {
		return fmt.Sprintf("%q", b)
	}
	return fmt.Sprintf("%q… (%d bytes)", b[:limit], len(b))
}

// Series writes the name of a metric's series in one way: labels sorted, empty
// ones left out. labels are names and values in turn.
func Series(name string, labels ...string) string {
	var pairs []string
	for i := 0; i+1 < len(labels); i += 2 {
		if labels[i+1] != "" {
			pairs = append(pairs, fmt.Sprintf("%s=%q", labels[i], labels[i+1]))
		}
	}
	if len(pairs) == 0 {
		return name
	}
	slices.Sort(pairs)
	return name + "{" + strings.Join(pairs, ",") + "}"
}

// parseSeries takes a series apart that a person wrote.
func parseSeries(s string) (name string, labels []string, err error) {
	name, rest, found := strings.Cut(s, "{")
	if !found {
		return s, nil, nil
	}
	rest, found = strings.CutSuffix(rest, "}")
	if !found {
		return "", nil, fmt.Errorf("%q is not name{label=\"value\",…}", s)
	}
	for rest != "" {
		var label, value string
		label, rest, found = strings.Cut(rest, "=\"")
		if !found {
			return "", nil, fmt.Errorf("%q is not name{label=\"value\",…}", s)
		}
		value, rest, found = strings.Cut(rest, "\"")
		if !found {
			return "", nil, fmt.Errorf("%q is not name{label=\"value\",…}", s)
		}
		labels = append(labels, strings.TrimSpace(label), value)
		rest = strings.TrimPrefix(strings.TrimSpace(rest), ",")
	}
	return name, labels, nil
}
