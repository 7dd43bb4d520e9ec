package chain_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// verdicts that a hook can give, by name.
var verdicts = map[string]filter.Verdict{
	"next":    filter.Next,
	"deny":    filter.Deny(filter.Refusal{Refusal: llm.Refusal{Status: 403, Code: "no"}}),
	"respond": filter.Respond(&filter.Answer{Status: 203, Body: []byte("own")}),
	"wait":    filter.Wait(filter.Call{Cluster: "c", Timeout: time.Second}),
	"fail":    filter.Fail("no-data"),
}

// TestEveryVerdictOfEveryHook goes through every hook, verdict and failure mode: a
// verdict does what it says, or it is the filter's failure. None counts as Next by mistake.
func TestEveryVerdictOfEveryHook(t *testing.T) {
	const passed, held, closed = "passed", "held", "closed" // closed: the failure mode FailClosed
	want := map[string]map[string]string{
		"headers":  {"next": passed, "deny": "403", "respond": "203", "wait": closed, "fail": closed},
		"request":  {"next": passed, "deny": "403", "respond": "203", "wait": held, "fail": closed},
		"reply":    {"next": passed, "deny": "403", "respond": "203", "wait": held, "fail": closed},
		"response": {"next": passed, "deny": "403", "respond": "203", "wait": closed, "fail": closed},
	}
	for hook, row := range want {
		for verdict, outcome := range row {
			for _, mode := range []string{"FailOpen", "FailClosed"} {
				t.Run(fmt.Sprintf("%s/%s/%s", hook, verdict, mode), func(t *testing.T) {
					r := newRig(t, fmt.Sprintf("filters: [a: {failureMode: %s}, b: {}]", mode))
					got := playVerdict(t, r, hook, verdicts[verdict])
					failed := outcome == closed
					switch {
					case !failed:
						require.Equal(t, outcome, got)
					case mode == "FailOpen":
						require.Equal(t, passed, got)
					case verdict == "fail":
						require.Equal(t, "503", got)
					default:
						require.Equal(t, "500", got)
					}
					require.Equal(t, failed, r.metrics["inlet_filter_failure_total/a,"+mode+","] == 1)
					require.Equal(t, failed && verdict == "wait", len(r.logs) == 1, "a verdict that may not be is a defect of the filter: %q", r.logs)
				})
			}
		}
	}
}

// TestCallsHaveATimeout: without one a call would fail in a way that depends on the host.
func TestCallsHaveATimeout(t *testing.T) {
	r := newRig(t, "filters: [a: {failureMode: FailClosed}, b: {}]")
	require.Equal(t, "500", playVerdict(t, r, "request", filter.Wait(filter.Call{Cluster: "c"})))
	require.Equal(t, []string{"filter a waits for a call without a Timeout (FailClosed)"}, r.logs)
}

// playVerdict plays an exchange in which a hook of a gives a verdict, and returns the result.
func playVerdict(t *testing.T, r *rig, hook string, v filter.Verdict) string {
	give := func(*filter.Exchange) filter.Verdict { return v }
	switch hook {
	case "headers":
		r.a.headers = give
	case "request":
		r.a.request = give
	case "reply":
		r.a.request = func(*filter.Exchange) filter.Verdict { return verdicts["wait"] }
	case "response":
		r.a.response = give
	}
	r.a.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict {
		require.Equal(t, "reply", hook, "no other hook may wait here")
		return v
	}
	h := post()
	s, act := r.send(h, body)
	defer s.Done()
	if hook == "reply" {
		require.Equal(t, chain.Hold, act)
		s.Reply(h.last, &filter.Reply{Status: 200})
		if act = chain.Hold; h.resumed == 1 {
			act = chain.Continue
		}
	}
	if act == chain.Continue && h.reply == nil {
		act = s.ResponseHeaders(false)
	}
	switch {
	case h.reply != nil:
		return fmt.Sprint(h.reply.Status)
	case act == chain.Hold:
		return "held"
	}
	return "passed"
}
