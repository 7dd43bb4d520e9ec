package hosttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Check compares what happened in a step with what it expects. The error names
// every difference, one a line, and shows the whole outcome below.
func Check(step *Step, o *Outcome) error {
	c := &checker{}
	e := &step.Expect
	if e.Status != nil {
		c.equal("status", o.Status, *e.Status)
	}
	if e.Cut != nil {
		c.equal("cut", o.Status != 0 && !o.Complete, *e.Cut)
	}
	c.headers("headers", o.Headers, e.Headers)
	if e.Body != nil {
		c.bytes("body", o.Body, []byte(*e.Body))
	}
	if e.Events != nil {
		c.bytes("events", o.Body, bytes.Join(asEvents(e.Events), nil))
	}
	if e.Cancelled != nil {
		c.equal("cancelled", o.Cancelled, *e.Cancelled)
	}
	if e.JSON != nil {
		c.json("json", o.Body, e.JSON)
	}
	if e.Pool != "" {
		pool := o.Pool
		if pool == "" {
			pool = "none"
		}
		c.equal("pool", pool, e.Pool)
	}
	if e.Replica != nil && !slices.Contains(e.Replica, o.Replica) {
		c.differ("replica: got %q, want one of %q", o.Replica, []string(e.Replica))
	}
	c.arrived(step, o.Arrived)
	if e.Calls != nil {
		c.calls(o.Calls, *e.Calls)
	}
	c.metrics(o.Metrics, e.Metrics)
	if (o.Trap != "") != e.Trap {
		c.differ("trap: got %q, want a trap: %t", o.Trap, e.Trap)
	}
	if len(c.lines) == 0 {
		return nil
	}
	return errors.New(strings.Join(c.lines, "\n") + "\n--- what happened\n" + o.String())
}

// checker collects differences.
type checker struct{ lines []string }

func (c *checker) differ(format string, args ...any) {
	c.lines = append(c.lines, fmt.Sprintf(format, args...))
}

func (c *checker) equal(what string, got, want any) {
	if got != want {
		c.differ("%s: got %v, want %v", what, got, want)
	}
}

// bytes compares bodies and shows where they part.
func (c *checker) bytes(what string, got, want []byte) {
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < len(got) && at < len(want) && got[at] == want[at] {
		at++
	}
	c.differ("%s: got %d bytes, want %d; they differ from byte %d on:\n  got  %s\n  want %s",
		what, len(got), len(want), at, around(got, at), around(want, at))
}

// around quotes what stands at and shortly before a place.
func around(b []byte, at int) string {
	from, to := max(0, at-20), min(len(b), at+80)
	return fmt.Sprintf("%q", b[from:to])
}

func (c *checker) headers(what string, got Headers, want map[string]*string) {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		value := want[name]
		have, ok := got.Get(strings.ToLower(name))
		switch {
		case value == nil && ok:
			c.differ("%s.%s: got %q, want it absent", what, name, have)
		case value != nil && !ok:
			c.differ("%s.%s: absent, want %q", what, name, *value)
		case value != nil && *value != "*" && have != *value:
			c.differ("%s.%s: got %q, want %q", what, name, have, *value)
		}
	}
}

func (c *checker) arrived(step *Step, got *Arrived) {
	want := step.Expect.Arrived
	if want == nil {
		return
	}
	if got == nil {
		c.differ("arrived: no replica got the request")
		return
	}
	c.headers("arrived.headers", got.Headers, want.Headers)
	if want.Body != nil {
		body := []byte(*want.Body)
		switch *want.Body {
		case "same":
			body = step.Request.Payload()
		case "decoded":
			body = step.Request.Text()
		}
		c.bytes("arrived.body", got.Body, body)
	}
	if want.Edited != nil {
		body, err := edit(step.Request.Text(), want.Edited)
		if err != nil {
			c.differ("arrived.edited: %v", err)
		} else {
			c.bytes("arrived.edited", got.Body, body)
		}
	}
	for name, value := range want.Trailers {
		have, _ := got.Trailers.Get(name)
		c.equal("arrived.trailers."+name, have, value)
	}
}

// edit replaces each key, which must stand in body exactly once.
func edit(body []byte, replacements map[string]string) ([]byte, error) {
	edited := body
	for old, with := range replacements {
		if n := bytes.Count(body, []byte(old)); n != 1 {
			return nil, fmt.Errorf("%q stands %d times in the body that was sent", old, n)
		}
		edited = bytes.Replace(edited, []byte(old), []byte(with), 1)
	}
	return edited, nil
}

func (c *checker) calls(got []Call, want []ExpectedCall) {
	if len(got) != len(want) {
		c.differ("calls: got %d, want %d", len(got), len(want))
		return
	}
	for i, w := range want {
		g, what := got[i], fmt.Sprintf("calls[%d]", i)
		if w.Cluster != "" {
			c.equal(what+".cluster", g.Cluster, w.Cluster)
		}
		if w.Method != "" {
			c.equal(what+".method", g.Method, w.Method)
		}
		if w.Path != "" {
			c.equal(what+".path", g.Path, w.Path)
		}
		c.headers(what+".headers", g.Headers, w.Headers)
		if w.Body != nil {
			c.bytes(what+".body", g.Body, []byte(*w.Body))
		}
		if w.JSON != nil {
			c.json(what+".json", g.Body, w.JSON)
		}
	}
}

func (c *checker) metrics(got map[string]int64, want map[string]int64) {
	for _, written := range slices.Sorted(maps.Keys(want)) {
		n := want[written]
		name, labels, err := parseSeries(written)
		if err != nil {
			c.differ("metrics: %v", err)
			continue
		}
		if have := got[Series(name, labels...)]; have != n {
			c.differ("metrics.%s: grew by %d, want %d", written, have, n)
		}
	}
}

// json compares a subset of a JSON document.
func (c *checker) json(what string, doc []byte, want any) {
	decoder := json.NewDecoder(bytes.NewReader(doc))
	decoder.UseNumber()
	var got any
	if err := decoder.Decode(&got); err != nil {
		c.differ("%s: %v in %s", what, err, shorten(doc))
		return
	}
	c.subset(what, got, want)
}

func (c *checker) subset(what string, got, want any) {
	switch want := want.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			c.differ("%s: got %v, want an object", what, got)
			return
		}
		for _, name := range slices.Sorted(maps.Keys(want)) {
			c.subset(what+"."+name, object[name], want[name])
		}
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			c.differ("%s: got %v, want %d items", what, got, len(want))
			return
		}
		for i := range want {
			c.subset(fmt.Sprintf("%s[%d]", what, i), list[i], want[i])
		}
	default:
		// Numbers are compared as they are written, so that none is rounded.
		if fmt.Sprint(got) != fmt.Sprint(want) || isString(got) != isString(want) {
			c.differ("%s: got %v, want %v", what, got, want)
		}
	}
}

// isString tells "1" from 1, which are written alike.
func isString(v any) bool {
	_, ok := v.(string)
	return ok
}
