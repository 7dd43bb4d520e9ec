package module

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// A document that stands twice in Envoy's filter chain takes its own control headers for its own; one that stands there once, or beside
// another document, takes them for the client's, and writes nothing that nobody reads.
func TestADocumentTwice(t *testing.T) {
	const another = "filters: [{policy: {}}]\ncontrolHeaders: remove"
	control := "x-gateway-destination-endpoint"
	for name, c := range map[string]struct {
		first, second string
		left          int // of the configurations before, still there
		own, noted    bool
	}{
		"once":                        {policyOnly, "", 0, false, false},
		"twice":                       {policyOnly, policyOnly, 0, true, true},
		"beside another":              {policyOnly, another, 0, false, false},
		"an older one is still there": {policyOnly, another, 1, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := &policy{needs: filter.NeedRequest, request: func(x *filter.Exchange) filter.Verdict {
				x.SetRequestHeader(control, "10.0.0.1:80")
				return filter.Next
			}}
			e, process := &envoyConfig{}, newProcess(nil)
			create := func(document string) *config {
				c, err := newConfig(e, []byte(document), []filter.Factory{p.factory()}, process)
				require.NoError(t, err)
				return c
			}
			for range c.left {
				create(c.first)
			}
			first := create(c.first)
			create(c.first).OnDestroy() // that of an update that was taken back
			second := first
			if c.second != "" {
				second = create(c.second)
			}
			s := open(t, first, e)
			s.filter.OnRequestHeaders(s.request, false)
			require.Equal(t, shared.BodyStatusContinue, s.data(true, chat))
			require.Equal(t, "10.0.0.1:80", s.request.value(control))
			require.Equal(t, c.noted, s.state[passedState] != "")

			p.request = nil
			s.filter = second.Create(s)
			s.buffered = newBuffer()
			s.filter.OnRequestHeaders(s.request, false)
			require.Equal(t, shared.BodyStatusContinue, s.data(true, chat))
			require.NotContains(t, strings.Join(s.did, " "), "reply")
			require.Equal(t, c.own, s.request.value(control) != "")
		})
	}
}

// The mark is the document's number and nothing else.
func TestMarks(t *testing.T) {
	c, e := load(t, policyOnly, &policy{})
	s := open(t, c, e)
	host := s.filter.(*stream)
	const document = 0x0102030405060708
	require.False(t, host.Marked(document), "no mark")
	number := string(binary.LittleEndian.AppendUint64(nil, document))
	for mark, want := range map[string]bool{
		number: true, "": false, "x": false, number[:7]: false, number + "x": false, "x" + number[1:]: false, number[:7] + "x": false,
		strings.Repeat("\x00", 8): false,
	} {
		s.state[passedState] = mark
		require.Equal(t, want, host.Marked(document), "%q", mark)
	}
}
