package chain_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// What the README says of a document that does not say it.
func TestDefaults(t *testing.T) {
	c := newRig(t, "companion: {cluster: c}").chain
	require.Equal(t, chain.Companion{Cluster: "c", Wait: 20 * time.Second}, c.Companion())

	prompt := func(options string) (text string, cut bool) {
		r := withOptions(t, options, filter.NeedPrompt)
		r.a.request = func(x *filter.Exchange) filter.Verdict {
			text, cut = string(x.Request.Prompt), x.Request.PromptCut
			return filter.Next
		}
		said := strings.Repeat("w", 128<<10+1)
		_, act := r.send(post(), `{"model":"m","messages":[{"role":"user","content":"`+said+`"}]}`)
		require.Equal(t, chain.Continue, act)
		return text, cut
	}
	text, cut := prompt("")
	require.True(t, cut)
	require.Len(t, text, 128<<10, "limits.prompt")
	text, cut = prompt("limits: {prompt: 131073}")
	require.False(t, cut)
	require.Len(t, text, 128<<10+1)

	for options, want := range map[string]int{"": 512 << 10 / llm.PrefixBlockBytes, "limits: {prefix: 1KiB}": 1 << 10 / llm.PrefixBlockBytes} {
		r := withOptions(t, options, filter.NeedPrefix)
		r.a.request = func(x *filter.Exchange) filter.Verdict {
			require.Len(t, x.Request.Prefix, want, "limits.prefix")
			return filter.Next
		}
		_, act := r.send(post(), `{"model":"m","messages":[{"role":"user","content":"`+strings.Repeat("w", 600<<10)+`"}]}`)
		require.Equal(t, chain.Continue, act)
	}

	for size, want := range map[int]chain.Action{16 << 20: chain.Hold, 16<<20 + 1: chain.Replied} {
		s := newRig(t, "").chain.NewStream()
		s.Begin(post("content-length", fmt.Sprint(size)))
		require.Equal(t, want, s.RequestHeaders(false), "limits.body, %d", size)
	}
}

// silent is a filter that reads no member of the body by name.
type silent struct{ filter.Base }

// Members of the body are read for each filter that asks for some, wherever it stands; the same name counts once.
func TestFieldsOfAllFilters(t *testing.T) {
	names := func(n int) (names []string) {
		for i := range n {
			names = append(names, fmt.Sprint("field", i))
		}
		return names
	}
	text := `{"model":"m"`
	for _, name := range append(names(llm.MaxFields), "user", "seed") {
		text += `,"` + name + `":"v-` + name + `"`
	}
	for _, c := range []struct {
		fields [][]string // of each filter
		fits   bool
	}{
		{[][]string{nil, {"user"}}, true},
		{[][]string{nil, nil, {"user"}}, true},
		{[][]string{{"user"}, nil, {"seed"}}, true},
		{[][]string{{"user"}, {"seed", "user"}}, true},
		{[][]string{names(llm.MaxFields), names(llm.MaxFields)}, true},
		{[][]string{names(llm.MaxFields - 1), nil, {"user"}}, true},
		{[][]string{names(llm.MaxFields), nil, {"user"}}, false},
	} {
		var known []filter.Factory
		var document []string
		var readers []*reader
		for i, fields := range c.fields {
			var f filter.Filter = silent{}
			if fields != nil {
				r := &reader{fields: fields}
				f, readers = r, append(readers, r)
			}
			name := fmt.Sprint("f", i)
			document = append(document, name+": {}")
			known = append(known, filter.Factory{Name: name, FailureMode: filter.FailClosed, New: func(*conf.Object, *filter.Deps) filter.Filter { return f }})
		}
		made, err := chain.New([]byte("filters: ["+strings.Join(document, ", ")+"]"), known, newRig(t, "").chain.Deps())
		if !c.fits {
			require.ErrorContains(t, err, fmt.Sprintf("read %d members of the body by name; at most %d can be", llm.MaxFields+1, llm.MaxFields))
			continue
		}
		require.NoError(t, err)
		s := made.NewStream()
		s.Begin(post())
		s.RequestHeaders(false)
		require.Equal(t, chain.Continue, s.RequestBody([]byte(text+"}"), true))
		for _, r := range readers {
			var want []string
			for _, name := range r.fields {
				want = append(want, name+"=v-"+name)
			}
			require.Equal(t, want, r.seen)
		}
	}
}
