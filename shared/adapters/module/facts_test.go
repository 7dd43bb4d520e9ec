package module

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// What Envoy reports about a response. 1.38 reports nothing, and logs an error for each question:
// it is asked one thing once, and headers have to do.
func TestFactsOfAnAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		details  string
		attempts int
		header   string
		want     filter.Response
		asked    int // for attributes, by three answers
	}{
		"told": {
			"upstream_reset_before_response_started{overflow}", 2, "",
			filter.Response{Origin: filter.OfProxy, Attempts: 2, Cluster: "blue"},
			13,
		},
		"told, a replica's":    {"via_upstream", 1, "9", filter.Response{Attempts: 1, Cluster: "blue"}, 13},
		"1.38":                 {"", 0, "3", filter.Response{Origin: filter.OfFailure, Attempts: 3}, 4},
		"1.38, without header": {"", 0, "", filter.Response{Origin: filter.OfFailure}, 4},
		"1.38, odd header":     {"", 0, "x", filter.Response{Origin: filter.OfFailure}, 4},
	} {
		var got filter.Response
		config, e := load(t, policyOnly, &policy{
			request:  func(x *filter.Exchange) filter.Verdict { x.Target.Address = "10.0.0.9:80"; return filter.Next },
			response: func(x *filter.Exchange) filter.Verdict { got = x.Response; return filter.Next },
		})
		asked := 0
		for range 3 {
			s := open(t, config, e)
			s.details, s.attempts = c.details, c.attempts
			s.filter.OnRequestHeaders(s.request, true)
			s.request.Set("x-envoy-attempt-count", c.header)
			s.respond(true, [2]string{":status", "503"})
			require.Equal(t, c.want.Origin, got.Origin, name)
			require.Equal(t, c.want.Attempts, got.Attempts, name)
			require.Equal(t, c.want.Cluster, got.Cluster, name)
			require.Equal(t, "10.0.0.1:80", got.Served, name)
			s.end()
			asked += s.asked
		}
		require.Equal(t, c.asked, asked, name)
	}
}

// An Envoy that tells nothing is not asked again when clients leave before an answer, and one that follows a
// redirect tells what the request has become and whose connection it is.
func TestFactsWithoutAnAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		details string
		asked   int // by three exchanges
		passes  bool
	}{
		"1.38":       {"", 4, false}, // the address each time, and one question in all
		"left":       {"downstream_remote_disconnect", 10, false},
		"redirected": {"internal_redirect", 13, true},
	} {
		config, e := load(t, policyOnly, &policy{request: func(*filter.Exchange) filter.Verdict { return filter.Next }})
		asked := 0
		for range 3 {
			s := open(t, config, e)
			s.details = c.details
			s.request.Set("x-request-id", "1")
			s.filter.OnRequestHeaders(s.request, true)
			s.request.Set("x-envoy-original-url", "http://gateway.test/")
			s.request.Set(":path", "/elsewhere")
			s.end()
			asked += s.asked
		}
		require.Equal(t, c.asked, asked, name)
		s := open(t, config, e)
		s.details = c.details
		s.request.Set("x-request-id", "1")
		s.request.Set("x-envoy-original-url", "http://gateway.test/")
		s.request.Set(":path", "/elsewhere")
		s.filter.OnRequestHeaders(s.request, true)
		s.end()
		require.Equal(t, c.passes, s.metadata["inlet/why"] == "redirect=followed", name)
	}
}

// A filter sees each snapshot when it comes, without a request.
func TestSnapshotsAreWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := 0
		e := &envoyConfig{}
		c, err := newConfig(e, []byte(withCompanion), []filter.Factory{{
			Name: "policy", FailureMode: filter.FailClosed,
			New: func(_ *conf.Object, d *filter.Deps) filter.Filter {
				d.Watch(func() {
					require.NotNil(t, d.Snapshot())
					seen++
				})
				return &policy{}
			},
		}}, newProcess(nil))
		require.NoError(t, err)
		defer c.OnDestroy()
		e.loop()
		for version := range uint64(3) {
			e.answer("200", wire(version+1))
			require.EqualValues(t, version+1, seen)
		}
		e.answer("200", wire(2))
		require.Equal(t, 3, seen, "an older one is none")
	})
}
