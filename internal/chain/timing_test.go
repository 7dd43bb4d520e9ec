package chain_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// The clock of these tests goes on by a millisecond at each look.
func TestScanAndEditAreTimed(t *testing.T) {
	for _, c := range []struct {
		rand        uint64
		edit        bool
		coding      string
		pieces      int
		scan, edits int64
	}{
		{rand: 1, edit: true, pieces: 1},
		{rand: 15, pieces: 2},
		{rand: 32, pieces: 1, scan: 1000},
		{rand: 0, edit: true, pieces: 3, scan: 3000, edits: 1000},
		{rand: 16, coding: "gzip", pieces: 2, scan: 2000, edits: 1000}, // decoded, then read; goes on decoded
	} {
		r := newRig(t, "")
		r.rand = c.rand
		r.a.request = func(x *filter.Exchange) filter.Verdict {
			if c.edit {
				x.ReplaceInBody(x.Request.ModelSpan, []byte(`"n"`))
			}
			return filter.Next
		}
		wire, h := body, post()
		if c.coding != "" {
			wire, h = encode(t, c.coding, body), post("content-encoding", c.coding)
		}
		s := r.chain.NewStream()
		s.Begin(h)
		require.Equal(t, chain.Hold, s.RequestHeaders(false))
		for i := range c.pieces {
			s.RequestBody([]byte(wire[i*len(wire)/c.pieces:(i+1)*len(wire)/c.pieces]), i == c.pieces-1)
		}
		s.Done()
		require.Equal(t, c.scan, r.metrics["inlet_body_scan_us/,,"], fmt.Sprint(c))
		require.Equal(t, c.edits, r.metrics["inlet_body_edit_us/,,"], fmt.Sprint(c))
	}
}

func TestRequestsWithoutBodyAreNotTimed(t *testing.T) {
	r := newRig(t, "")
	r.rand = 0
	s := r.chain.NewStream()
	s.Begin(&host{request: headers{":method": "GET", ":path": "/v1/models"}})
	s.RequestHeaders(true)
	s.Done()
	require.NotContains(t, r.metrics, "inlet_body_scan_us/,,")
}

// What was measured of one request is told once, whatever comes next on the same Stream.
func TestAMeasureIsToldOnce(t *testing.T) {
	r := newRig(t, "")
	r.rand = 0
	s := r.chain.NewStream()
	s.Begin(post())
	s.RequestHeaders(false)
	s.RequestBody([]byte(body), true)
	s.Done()
	once := r.metrics["inlet_body_scan_us/,,"]
	require.Positive(t, once)
	for _, h := range []*host{{request: headers{":method": "GET", ":path": "/v1/models"}}, post(":path", "/elsewhere")} {
		s.Begin(h)
		s.RequestHeaders(true)
		s.Done()
		require.Equal(t, once, r.metrics["inlet_body_scan_us/,,"])
	}
}
