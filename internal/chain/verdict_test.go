package chain_test

import (
	"fmt"
	"slices"
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
	"beside":  filter.Beside(filter.Call{Cluster: "c", Timeout: time.Second}),
	"fail":    filter.Fail("no-data"),
}

// TestEveryVerdictOfEveryHook goes through every hook, verdict and failure mode: a
// verdict does what it says, or it is the filter's failure. None counts as Next by mistake.
func TestEveryVerdictOfEveryHook(t *testing.T) {
	// closed: the failure mode FailClosed. parked: the request went on, and its response is held.
	const passed, held, parked, closed = "passed", "held", "parked", "closed"
	want := map[string]map[string]string{
		"headers":  {"next": passed, "deny": "403", "respond": "203", "wait": closed, "beside": closed, "fail": closed},
		"request":  {"next": passed, "deny": "403", "respond": "203", "wait": held, "beside": parked, "fail": closed},
		"reply":    {"next": passed, "deny": "403", "respond": "203", "wait": held, "beside": parked, "fail": closed},
		"beside":   {"next": passed, "deny": "403", "respond": "203", "wait": parked, "beside": closed, "fail": closed},
		"response": {"next": passed, "deny": "403", "respond": "203", "wait": closed, "beside": closed, "fail": closed},
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
					require.Equal(t, failed && (verdict == "wait" || verdict == "beside"), len(r.logs) == 1, "a verdict that may not be is a defect of the filter: %q", r.logs)
				})
			}
		}
	}
}

// TestFaultyCalls: without a timeout a call would fail in a way that depends on the host, and what waits for nothing would wait forever.
func TestFaultyCalls(t *testing.T) {
	call := filter.Call{Cluster: "c", Timeout: time.Second}
	for what, calls := range map[string][]filter.Call{
		"waits for no call":                  nil,
		"waits for a call without a Timeout": {call, {Cluster: "c"}},
		"has more than 8 calls open":         slices.Repeat([]filter.Call{call}, filter.MaxCalls+1),
	} {
		for _, v := range []filter.Verdict{filter.Wait(calls...), filter.Beside(calls...)} {
			r := newRig(t, "filters: [a: {failureMode: FailClosed}, b: {}]")
			require.Equal(t, "500", playVerdict(t, r, "request", v))
			require.Equal(t, []string{"filter a " + what + " (FailClosed)"}, r.logs)
		}
	}
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
	case "beside":
		r.a.request = func(*filter.Exchange) filter.Verdict { return verdicts["beside"] }
	case "response":
		r.a.response = give
	}
	r.a.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict {
		require.Contains(t, []string{"reply", "beside"}, hook, "no other hook may wait here")
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
	if hook == "beside" {
		require.Equal(t, chain.Continue, act)
		s.Reply(h.last, &filter.Reply{Status: 200})
	}
	sent := act == chain.Continue && h.reply == nil
	if sent {
		act = s.ResponseHeaders(false)
	}
	switch {
	case h.reply != nil:
		return fmt.Sprint(h.reply.Status)
	case sent && act == chain.Hold:
		return "parked"
	case act == chain.Hold:
		return "held"
	}
	return "passed"
}
