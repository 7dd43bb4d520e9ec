package guardrail_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/armor"
)

// causes are all ways in which a check can fail, and what metrics call them.
var causes = []struct {
	name    string
	answer  armor.Answer
	outcome string
}{
	{"out of order", armor.Answer{Status: 503, Body: []byte(`{"error":{"code":503,"status":"UNAVAILABLE"}}`)}, "status"},
	{"internal error", armor.Answer{Status: 500}, "status"},
	{"over the quota", armor.Answer{Status: 429, Body: []byte(`{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}`)}, "status"},
	{"no credential", armor.Answer{Status: 401, Body: []byte(`{"error":{"code":401,"status":"UNAUTHENTICATED"}}`)}, "status"},
	{"no permission", armor.Answer{Status: 403}, "status"},
	{"no template", armor.Answer{Status: 404}, "status"},
	{"bad request", armor.Answer{Status: 400}, "status"},
	{"moved", armor.Answer{Status: 302}, "status"},
	{"an error with status 200", armor.Answer{Body: []byte(`{"error":{"code":13}}`)}, "unreadable"},
	{"a page", armor.Answer{Body: []byte(`<html>Sign in</html>`)}, "unreadable"},
	{"nothing", armor.Answer{}, "unreadable"},
	{"half of a pass", armor.Answer{Body: clean[:len(clean)/2]}, "unreadable"},
	{"filters skipped", armor.Answer{Body: armor.Verdict(armor.Result(armor.With("rai", armor.Rai(armor.Skipped, nil))))}, "partial"},
	{"cut", armor.Answer{Body: clean, Cut: true}, "unreachable"},
	{"never", armor.Answer{Never: true}, "timeout"},
	{"slow to begin", armor.Answer{Body: clean, After: patience}, "timeout"},
	{"slow to end", armor.Answer{Body: clean, Slow: patience}, "timeout"},
}

var clean = armor.Verdict(armor.Result(armor.Clean()))

// remote is a provider of the configuration.
func remote(name, cluster, mode, more string) string {
	return fmt.Sprintf("        - {name: %s, modelArmor: {template: %s, cluster: %s}, failureMode: %s, %s}\n", name, template, cluster, mode, more)
}

// policyFor is a policy for a model that has the provider's name.
func policyFor(provider string) string {
	return fmt.Sprintf("        - {on: request, use: [%s], action: block, models: [%s]}\n", provider, provider)
}

// policyForResponses is one for a model that has the provider's name, and -response.
func policyForResponses(provider string) string {
	return fmt.Sprintf("        - {on: response, use: [%s], action: block, models: [%s-response]}\n", provider, provider)
}

// TestOutage is row G15: every cause in both failure modes. Only where the cause is the timeout is it short: a machine that stalls for a
// moment must not be another cause.
func TestOutage(t *testing.T) {
	const (
		patient = "timeout: 10s, retries: 0, breaker: {failures: 0}"
		hasty   = "timeout: 400ms, retries: 0, breaker: {failures: 0}"
	)
	chain := chainOf("      providers:\n"+
		remote("closed", "armor", "FailClosed", patient)+remote("open", "armor", "FailOpen", patient)+
		remote("closed-hasty", "armor", "FailClosed", hasty)+remote("open-hasty", "armor", "FailOpen", hasty)+
		remote("closed-down", "down", "FailClosed", patient)+remote("open-down", "down", "FailOpen", patient)+
		remote("closed-missing", "missing", "FailClosed", patient)+remote("open-missing", "missing", "FailOpen", patient)+
		remote("retries", "armor", "FailClosed", "timeout: 10s, retries: 2, breaker: {failures: 0}")+
		"      policies:\n"+policyFor("closed")+policyFor("open")+policyFor("closed-hasty")+policyFor("open-hasty")+
		policyFor("closed-down")+policyFor("open-down")+policyFor("closed-missing")+policyFor("open-missing")+policyFor("retries")+
		policyForResponses("closed")+policyForResponses("open")+policyForResponses("closed-hasty")+policyForResponses("open-hasty"),
		"closed", "open", "closed-hasty", "open-hasty", "closed-down", "open-down", "closed-missing", "open-missing", "retries",
		"closed-response", "open-response", "closed-hasty-response", "open-hasty-response")
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			f := newFake(t)
			g := start(t, abi, clusters{"armor": f.address, "down": closedPort}, chain)
			for _, c := range causes {
				t.Run(c.name, func(t *testing.T) {
					f.says(func(armor.Request) armor.Answer { return c.answer })
					closed, open := "closed", "open"
					if c.outcome == "timeout" {
						closed, open = "closed-hasty", "open-hasty"
					}
					g.failure(t, closed, open, c.outcome)
					g.failureOfResponse(t, closed+"-response", open+"-response")
				})
			}
			t.Run("down", func(t *testing.T) { g.failure(t, "closed-down", "open-down", "") })
			t.Run("no cluster", func(t *testing.T) { g.failure(t, "closed-missing", "open-missing", "") })
			t.Run("well again", func(t *testing.T) {
				f.says(judge)
				require.Equal(t, 200, g.must(ask{model: "closed", prompt: "hello"}).status)
				require.Equal(t, 400, g.must(ask{model: "closed", prompt: "an attack"}).status)
			})
			t.Run("retries", func(t *testing.T) { testRetries(t, g, f) })
		})
	}
}

// failure asks in both modes while checks fail.
func (g *gateway) failure(t *testing.T, closed, open, outcome string) {
	failed := func(provider string) int {
		if outcome == "" {
			return g.sum("inlet_guardrail_check_total", "provider", provider, "phase", "request") -
				g.sum("inlet_guardrail_check_total", "provider", provider, "outcome", "clean")
		}
		return g.sum("inlet_guardrail_check_total", "provider", provider, "outcome", outcome)
	}
	before := [...]int{failed(closed), failed(open)}
	opened := g.sum("inlet_guardrail_audit_total", "phase", "request", "state", "fail_open")

	r := g.must(ask{model: closed, prompt: "hello"})
	require.Equal(t, http.StatusServiceUnavailable, r.status, r.body)
	require.Equal(t, "guardrail_unavailable", r.code, r.body)
	require.NotEmpty(t, r.header.Get("retry-after"))
	require.Empty(t, r.reached, "no replica gets it")
	for _, secret := range []string{"armor", "projects", "127.0.0.1", "modelarmor"} {
		require.NotContains(t, r.body, secret)
	}

	r = g.must(ask{model: open, prompt: "hello"})
	require.Equal(t, http.StatusOK, r.status, r.body)
	require.Equal(t, sha("hello"), r.reached)
	require.Equal(t, "request:fail_open", r.screened, r.why)
	require.Contains(t, r.why, open+"/"+outcome)
	eventually(t, "metrics tell", func() bool {
		return failed(closed) == before[0]+1 && failed(open) == before[1]+1 &&
			g.sum("inlet_guardrail_audit_total", "phase", "request", "state", "fail_open") == opened+1
	})
}

// failureOfResponse asks in both modes while checks of responses fail.
func (g *gateway) failureOfResponse(t *testing.T, closed, open string) {
	const says = "a long walk in the park"
	for _, stream := range []bool{false, true} {
		r := g.must(ask{model: closed, prompt: "hello", says: says, stream: stream})
		require.Equal(t, "guardrail_unavailable", r.code, r.body)
		require.Empty(t, r.text, "what no service has judged goes nowhere")
		if !stream {
			require.Equal(t, http.StatusServiceUnavailable, r.status, r.body)
		}
		r = g.must(ask{model: open, prompt: "hello", says: says, stream: stream})
		require.Equal(t, http.StatusOK, r.status, r.body)
		require.Equal(t, says, r.text)
		require.Equal(t, stream, r.ended)
		require.Equal(t, "response:fail_open", r.screened, r.why)
	}
}

// testRetries: what may heal is tried again, what will not is not.
func testRetries(t *testing.T, g *gateway, f *fake) {
	for _, c := range []struct {
		name   string
		answer armor.Answer
		calls  int
	}{
		{"out of order", armor.Answer{Status: 503}, 3},
		{"over the quota", armor.Answer{Status: 429}, 1},
		{"no credential", armor.Answer{Status: 401}, 1},
		{"bad request", armor.Answer{Status: 400}, 1},
		{"filters skipped", armor.Answer{Body: armor.Verdict(armor.Result(armor.With("rai", armor.Rai(armor.Skipped, nil))))}, 1},
	} {
		before := f.asked()
		f.says(func(armor.Request) armor.Answer { return c.answer })
		require.Equal(t, 503, g.must(ask{model: "retries", prompt: "hello"}).status, c.name)
		require.Equal(t, c.calls, f.asked()-before, c.name)
	}
	var tries sync.Map
	f.says(func(r armor.Request) armor.Answer {
		if _, again := tries.LoadOrStore(r.Text, true); again {
			return judge(r)
		}
		return armor.Answer{Status: 503}
	})
	require.Equal(t, 200, g.must(ask{model: "retries", prompt: "hello again"}).status)
	require.Equal(t, 400, g.must(ask{model: "retries", prompt: "an attack"}).status)
}

// TestBreaker is row G16: some failures in a row open it, then nobody is asked; one request finds that the service is well again.
func TestBreaker(t *testing.T) {
	const breaking = "timeout: 10s, retries: 0, breaker: {failures: 3, open: %s}"
	chain := chainOf("      providers:\n"+
		remote("closed", "armor", "FailClosed", fmt.Sprintf(breaking, "1s"))+remote("open", "armor", "FailOpen", fmt.Sprintf(breaking, "1s"))+
		remote("long", "armor", "FailClosed", fmt.Sprintf(breaking, "1m"))+
		"      policies:\n"+policyFor("closed")+policyFor("open")+policyFor("long"), "closed", "open", "long", "free")
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			f := newFake(t)
			g := start(t, abi, clusters{"armor": f.address}, chain)
			t.Run("flapping", func(t *testing.T) { testFlapping(t, g, f) })
			t.Run("opens", func(t *testing.T) { testOpens(t, g, f) })
			t.Run("closes", func(t *testing.T) { testCloses(t, g, f) })
			t.Run("under load", func(t *testing.T) { testLoad(t, g, f) })
		})
	}
}

// testFlapping: two failures and a verdict, again and again, do not open it, whatever the verdict is.
func testFlapping(t *testing.T, g *gateway, f *fake) {
	for i := range 12 {
		prompt, want := "hello", http.StatusOK
		switch i % 6 {
		case 0, 1, 3, 4:
			f.says(func(armor.Request) armor.Answer { return armor.Answer{Status: 503} })
			want = http.StatusServiceUnavailable
		case 2:
			f.says(judge)
		case 5:
			f.says(judge)
			prompt, want = "an attack", http.StatusBadRequest
		}
		before := f.asked()
		require.Equal(t, want, g.must(ask{model: "closed", prompt: prompt}).status, "request %d", i)
		require.Equal(t, before+1, f.asked())
	}
	require.Zero(t, g.sum("inlet_guardrail_breaker_total", "state", "open"))
}

// breaks has a provider's breaker open, and the service well again.
func breaks(t *testing.T, g *gateway, f *fake, provider string) {
	f.says(func(armor.Request) armor.Answer { return armor.Answer{Status: 503} })
	before := f.asked()
	for range 3 {
		require.Equal(t, 503, g.must(ask{model: provider, prompt: "hello"}).status)
	}
	require.Equal(t, before+3, f.asked())
	f.says(judge)
}

// testOpens: of a provider whose breaker is open for long, nobody is asked.
func testOpens(t *testing.T, g *gateway, f *fake) {
	breaks(t, g, f, "long")
	before := f.asked()
	r := g.must(ask{model: "long", prompt: "hello"})
	require.Equal(t, 503, r.status)
	require.Equal(t, "guardrail_unavailable", r.code)
	require.Equal(t, before, f.asked())
	wait, err := strconv.Atoi(r.header.Get("retry-after"))
	require.NoError(t, err)
	require.Greater(t, wait, 1, "as long as it is open, not the default")
	require.LessOrEqual(t, wait, 60)
	require.Contains(t, r.why, "long/breaker_open")
	eventually(t, "metrics tell", func() bool {
		return g.sum("inlet_guardrail_breaker_total", "provider", "long", "state", "open") == 1 &&
			g.sum("inlet_guardrail_check_total", "provider", "long", "outcome", "breaker_open") == 1
	})
}

// testCloses: one that is open for a short time closes.
func testCloses(t *testing.T, g *gateway, f *fake) {
	breaks(t, g, f, "closed")
	eventually(t, "it closes again", func() bool { return g.must(ask{model: "closed", prompt: "hello"}).status == 200 })
	require.Equal(t, 400, g.must(ask{model: "closed", prompt: "an attack"}).status)
	eventually(t, "metrics tell", func() bool {
		return g.sum("inlet_guardrail_breaker_total", "provider", "closed", "state", "open") == 1 &&
			g.sum("inlet_guardrail_breaker_total", "provider", "closed", "state", "closed") == 1
	})
}

// testLoad: many requests while the service hangs all get what the failure mode says, and what is not screened is not disturbed.
func testLoad(t *testing.T, g *gateway, f *fake) {
	f.says(func(armor.Request) armor.Answer { return armor.Answer{Never: true} })
	statuses := g.load(t, 60)
	require.Equal(t, map[string]int{"closed 503": 20, "open 200": 20, "free 200": 20}, statuses)
	require.Positive(t, g.sum("inlet_guardrail_check_total", "provider", "closed", "outcome", "timeout"))
	f.says(judge)
	eventually(t, "all are well again", func() bool {
		return g.must(ask{model: "closed", prompt: "hello"}).status == 200 && strings.Contains(g.must(ask{model: "open", prompt: "hello"}).screened, "scanned")
	})
	require.Equal(t, map[string]int{"closed 200": 20, "open 200": 20, "free 200": 20}, g.load(t, 60))
}

// load sends requests to all models at once, and counts the statuses.
func (g *gateway) load(t *testing.T, n int) map[string]int {
	var mu sync.Mutex
	var wg sync.WaitGroup
	statuses := map[string]int{}
	for i := range n {
		model := [...]string{"closed", "open", "free"}[i%3]
		wg.Go(func() {
			r, err := g.send(ask{model: model, prompt: fmt.Sprint("hello ", i)})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			statuses[fmt.Sprint(model, " ", r.status)]++
		})
	}
	wg.Wait()
	return statuses
}
