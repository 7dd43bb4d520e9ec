package companion_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

const (
	relayed = `
filters:
  - bbr: {models: [{name: llama, targets: [{model: llama-3-8b, pool: llama}]}]}
  - picker: {explainHeader: x-why}
companion: {cluster: inlet-companion}`

	// ticks is the time after which every wasm worker knows what the polling worker knew: they look every 20 ms, and what
	// they have read is not visible from outside.
	ticks = 200 * time.Millisecond
	// patience is how long anything may take before it counts as hanging.
	patience = 30 * time.Second
)

// Two Envoys with one companion are one gateway: what one has in flight and learns, the other knows.
func TestRelay(t *testing.T) {
	for _, abi := range []string{stack.Wasm, stack.Module} {
		t.Run(abi, func(t *testing.T) {
			s := stack.ForTest(t, stack.Options{ABI: abi, Chain: relayed, Pools: []stack.Pool{
				{Name: "llama", Replicas: 3, Args: []string{"--model", "llama-3-8b", "--token-time", "50ms"}},
			}})
			require.NoError(t, s.WaitForSnapshot(t.Context()))
			f := &fleet{t: t, Stack: s}
			f.second = f.start()
			f.aSessionStays()
			f.aRestartedEnvoyKnowsThePrompts()
			f.requestsInFlightAreSeen()
			f.theCompanionDies()
		})
	}
}

// fleet is two Envoys.
type fleet struct {
	t *testing.T
	*stack.Stack
	second *stack.Envoy
}

func (f *fleet) start() *stack.Envoy {
	f.t.Helper()
	e, err := f.StartEnvoy(context.WithoutCancel(f.t.Context())) // the stack ends it
	require.NoError(f.t, err)
	f.eventually("two Envoys take part", func() bool { return f.relayMetric("proxies", "") >= 2 })
	picks := 0
	f.eventually("all its workers pick", func() bool {
		a, end, err := f.ask(f.t.Context(), e.URL(), "short", 1)
		if err != nil {
			return false
		}
		end()
		if picks++; a.why["picker"] == "" {
			picks = 0
		}
		return picks == 10
	})
	return e
}

func (f *fleet) eventually(what string, ok func() bool) {
	f.t.Helper()
	for end := time.Now().Add(patience); !ok(); f.pass(10 * time.Millisecond) {
		require.True(f.t, time.Now().Before(end), "did not happen: %s", what)
	}
}

func (f *fleet) pass(d time.Duration) {
	select {
	case <-time.After(d):
	case <-f.t.Context().Done():
	}
}

// relayMetric is inlet_companion_relay_<name> of a result, 0 if the companion does not answer.
func (f *fleet) relayMetric(name, result string) float64 {
	resp, err := http.Get(f.Companion.URL() + "/metrics")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	require.NoError(f.t, err)
	for _, m := range families["inlet_companion_relay_"+name].GetMetric() {
		if result == "" || m.Label[0].GetValue() == result {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return 0
}

// served is the result of a request.
type served struct {
	replica string
	why     map[string]string
}

// hits are the known blocks of the prompt, and all of them.
func (a served) hits() (known, all int) {
	before, after, _ := strings.Cut(a.why["hit"], "/")
	known, _ = strconv.Atoi(before)
	all, _ = strconv.Atoi(after)
	return known, all
}

// ask sends a request; the returned function reads the response to its end.
func (f *fleet) ask(ctx context.Context, url, prompt string, tokens int) (served, func(), error) {
	body, err := json.Marshal(map[string]any{
		"model": "llama", "stream": true, "max_tokens": tokens, "messages": []any{map[string]string{"role": "user", "content": prompt}},
	})
	require.NoError(f.t, err)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", bytes.NewReader(body))
	require.NoError(f.t, err)
	req.Header.Set("content-type", "application/json")
	req.Close = true // a new connection, so that all workers get their share
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return served{}, nil, err
	}
	end := func() {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	if resp.StatusCode != http.StatusOK {
		end()
		return served{}, nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	a := served{replica: resp.Header.Get("x-modelsim-replica"), why: map[string]string{}}
	for _, word := range strings.Fields(resp.Header.Get("x-why")) {
		key, value, _ := strings.Cut(word, "=")
		a.why[key] = value
	}
	return a, end, nil
}

func (f *fleet) chat(url, prompt string) served {
	f.t.Helper()
	a, end, err := f.ask(f.t.Context(), url, prompt, 1)
	require.NoError(f.t, err)
	end()
	return a
}

// conversation is the prompt of a turn: about three blocks more with each.
func conversation(name string, turn int) string {
	var b strings.Builder
	for i := range 3 * (turn + 4) {
		fmt.Fprintf(&b, "%s, page %d: ", name, i)
		b.WriteString(strings.Repeat(fmt.Sprint("word ", i%7, " "), 32))
	}
	return b.String()
}

// told waits until the pending note has been sent to the other Envoy.
func (f *fleet) told(do func()) {
	f.t.Helper()
	before := f.relayMetric("notes_total", "sent")
	do()
	f.eventually("the other Envoy receives it", func() bool { return f.relayMetric("notes_total", "sent") > before })
	f.pass(ticks)
}

// Ten turns of one session through two Envoys reach one replica, where each turn finds all of the one before.
func (f *fleet) aSessionStays() {
	urls := []string{f.URL(), f.second.URL()}
	var first served
	for turn := range 10 {
		var a served
		at := urls[0] // the first two by one Envoy
		if turn >= 2 {
			at = urls[turn%2]
		}
		f.told(func() { a = f.chat(at, conversation("session", turn)) })
		if turn == 0 {
			first = a
			continue
		}
		require.Equal(f.t, first.replica, a.replica, "turn %d", turn)
		known, all := a.hits()
		require.GreaterOrEqual(f.t, known, all-5, "turn %d: %v", turn, a.why)
	}
}

// ratio is the share of the prompts' tokens that an Envoy knew to be cached, while do runs.
func (f *fleet) ratio(s *stack.Stack, do func()) float64 {
	f.t.Helper()
	read := func() (hit, prompt float64) {
		m, err := s.Metrics(f.t.Context())
		require.NoError(f.t, err)
		return m.Sum("inlet_prefix_indexer_hit_tokens_total"), m.Sum("inlet_prefix_indexer_prompt_tokens_total")
	}
	hit, prompt := read()
	do()
	hitAfter, promptAfter := read()
	require.Greater(f.t, promptAfter, prompt)
	return (hitAfter - hit) / (promptAfter - prompt)
}

// An Envoy that is killed and restarted has the prompts after one relay round: its hits are within 5 % of what they were.
func (f *fleet) aRestartedEnvoyKnowsThePrompts() {
	const conversations = 30
	turn := func(url string, turn int) {
		for i := range conversations {
			f.chat(url, conversation(fmt.Sprint("conversation ", i), turn))
		}
	}
	for i := range 2 {
		f.told(func() { turn([]string{f.URL(), f.second.URL()}[i], i) })
	}
	before := f.ratio(f.second.Stack, func() { turn(f.second.URL(), 2) })
	require.Greater(f.t, before, 0.5)

	f.second.Kill()
	remembered, sent := f.relayMetric("remembered_notes", ""), f.relayMetric("notes_total", "sent")
	require.GreaterOrEqual(f.t, remembered, float64(conversations))
	f.second = f.start()
	f.eventually("it got all notes", func() bool { return f.relayMetric("notes_total", "sent") >= sent+remembered })
	f.pass(ticks)
	after := f.ratio(f.second.Stack, func() { turn(f.second.URL(), 3) })
	f.t.Logf("hits before the restart %.3f, after it %.3f", before, after)
	require.GreaterOrEqual(f.t, after, 0.95*before)
}

// hold keeps requests in progress through an Envoy, one for each replica, until the returned function is called.
func (f *fleet) hold(url string) (release func()) {
	f.t.Helper()
	var ends []func()
	used := map[string]bool{}
	f.eventually("a request on each replica", func() bool {
		ctx, cancel := context.WithCancel(f.t.Context())
		a, read, err := f.ask(ctx, url, "short", 4000) // some minutes
		require.NoError(f.t, err)
		end := func() { cancel(); read() }
		if used[a.replica] { // the gauges still contained requests that had ended elsewhere
			end()
			return false
		}
		used[a.replica] = true
		ends = append(ends, end)
		return len(ends) == 3
	})
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

// sees waits until an Envoy picks with this many requests in flight on the best replica.
func (f *fleet) sees(url, inFlight string) {
	f.t.Helper()
	f.eventually("in flight: "+inFlight, func() bool {
		a, end, err := f.ask(f.t.Context(), url, "short", 1)
		if err != nil {
			return false
		}
		end()
		return a.why["in-flight"] == inFlight
	})
}

// Each Envoy sees what the other has in flight, also when it is the only one that picks; and no longer when the other is
// dead.
func (f *fleet) requestsInFlightAreSeen() {
	f.sees(f.second.URL(), "0")
	release := f.hold(f.URL())
	f.sees(f.second.URL(), "1") // on whichever replica: each has one
	release()
	f.sees(f.second.URL(), "0")

	release = f.hold(f.second.URL())
	f.sees(f.URL(), "1")
	expired := f.relayMetric("expired_leases_total", "")
	f.second.Kill()
	f.sees(f.URL(), "0")
	require.Greater(f.t, f.relayMetric("expired_leases_total", ""), expired)
	release()
	f.second = f.start()
}

// No request fails without the companion, and when it is back, the requests in flight are reported to it again.
func (f *fleet) theCompanionDies() {
	release := f.hold(f.second.URL())
	f.sees(f.URL(), "1")
	f.Companion.Kill()
	for i := range 100 {
		f.chat([]string{f.URL(), f.second.URL()}[i%2], conversation("while it is away", i%5))
	}
	f.sees(f.URL(), "0") // what is not renewed no longer counts
	require.NoError(f.t, f.Companion.Start(context.WithoutCancel(f.t.Context())))
	f.sees(f.URL(), "1")
	release()
	f.sees(f.URL(), "0")
}
