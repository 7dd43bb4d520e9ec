package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// pickerChain has a model for each kind of burst, so that the access log shows which
// is which. Ejections are short, because tests wait for them.
const pickerChain = `
filters:
  - bbr:
      models:
        - {name: llama, targets: [{model: llama-3-8b, pool: llama}]}
        - {name: many, targets: [{model: llama-3-8b, pool: llama}]}
        - {name: one, targets: [{model: llama-3-8b, pool: llama}]}
        - {name: blind, targets: [{model: llama-3-8b, pool: llama}]}
  - picker:
      profile: sticky
      endpoints: 3
      saturation: {inFlight: 40}
      health: {failures: 2, eject: 300ms, maxEject: 1s, firstByte: 1h} # bursts are left unanswered on purpose
      slowStart: 0s
companion: {cluster: inlet-companion}
`

const replicas = 8

// TestPicker shows where requests go, and what happens to them when replicas fail.
func TestPicker(t *testing.T) {
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			s := stack.ForTest(t, stack.Options{
				ABI: abi, Workers: 4, Chain: pickerChain,
				Pools: []stack.Pool{ // they respond within about 10 ms, so that there always are requests in progress
					{Name: "llama", Replicas: replicas, Args: []string{"--model", "llama-3-8b", "--speed", "5"}},
				},
			})
			waitForPicks(t, s)
			p := &picks{t: t, s: s}
			t.Run("different prompts spread", p.testSpread)
			t.Run("one prompt stays, then spills", p.testOnePrompt)
			t.Run("a slow replica gets less", p.testSlow)
			t.Run("a stopped replica loses nothing", p.testStopped)
			t.Run("a dead replica is ejected and comes back", p.testEjected)
			t.Run("a draining replica gets nothing new", p.testDraining)
			t.Run("all metrics stop", p.testBlind)
		})
	}
}

// picks is a stack whose picks are checked.
type picks struct {
	t *testing.T
	s *stack.Stack
}

// chat is a request for a model; equal texts are equal prompts.
func chat(model, text string) string {
	return `{"model":"` + model + `","messages":[{"role":"user","content":"` + text + `"}],"max_tokens":4}`
}

// longText is different from the first word on for every n, and some pages long.
func longText(n int) string { return strings.Repeat(fmt.Sprintf("Page %d of the book. ", n), 200) }

// burst sends n concurrent requests that no replica responds to, so that none ends
// before the last one is sent, and returns how many each replica got. Then the clients
// leave.
func (p *picks) burst(t *testing.T, n int, body func(i int) string) map[string]int {
	t.Helper()
	return p.bursts(t, 1, n, body)
}

// bursts is a number of bursts, one after the other: before the next one all workers
// know about the last one.
func (p *picks) bursts(t *testing.T, bursts, n int, body func(i int) string) (hits map[string]int) {
	t.Helper()
	before := p.sent()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var all sync.WaitGroup
	sent := 0
	for range bursts {
		for range n {
			text := body(sent)
			all.Go(func() { post(ctx, p.s, chatPath, text, "x-modelsim-fault", "hang") })
			sent++
		}
		eventually(t, fmt.Sprintf("%d requests are with replicas", sent), func() (bool, error) {
			var err error
			hits, err = p.stats("rq_active")
			return sum(hits) >= sent, err
		})
		require.NoError(t, pass(t.Context(), ticks))
	}
	leave()
	all.Wait()
	eventually(t, "no request is in flight any more", func() (bool, error) {
		m, err := p.s.Metrics(t.Context())
		return m.Sum("inlet_in_flight_requests", "pool", "llama") == 0, err
	})
	require.Equal(t, before+sent, p.sent(), "each was sent once")
	return hits
}

// sent is the number of requests that Envoy has sent to replicas.
func (p *picks) sent() int {
	total, err := p.stats("rq_total")
	require.NoError(p.t, err)
	return sum(total)
}

func sum(hits map[string]int) (n int) {
	for _, k := range hits {
		n += k
	}
	return n
}

// stats returns a number of every replica for which it is above 0.
func (p *picks) stats(name string) (map[string]int, error) {
	hosts, err := p.s.Hosts(p.t.Context(), "llama")
	found := map[string]int{}
	for address, figures := range hosts {
		if n := figures[name]; n > 0 {
			found[address] = n
		}
	}
	return found, err
}

func most(hits map[string]int) (n int) {
	for _, k := range hits {
		n = max(n, k)
	}
	return n
}

// testSpread: a burst of different prompts within one scrape interval. Workers learn
// of each other's picks one tick later, so the result is partly random: the median of
// three bursts counts.
func (p *picks) testSpread(t *testing.T) {
	p.freezeGauges(t)
	var worst []int
	for round := range 3 {
		hits := p.burst(t, 200, func(i int) string { return chat("many", longText(1000*round+i)) })
		require.Len(t, hits, replicas)
		worst = append(worst, most(hits))
	}
	slices.Sort(worst)
	t.Logf("of 200 in %d replicas the most: %v", replicas, worst)
	require.LessOrEqual(t, worst[1], 200/replicas*13/10)
}

// freezeGauges makes all replicas hold back their metrics until the test ends: no
// scrape completes meanwhile.
func (p *picks) freezeGauges(t *testing.T) {
	t.Helper()
	p.setFault(t, "metrics=hang", p.s.Replicas...)
}

// setFault sets a fault of replicas until the test ends.
func (p *picks) setFault(t *testing.T, fault string, replicas ...*stack.Replica) {
	t.Helper()
	say := func(ctx context.Context, method string, r *stack.Replica) {
		req, err := http.NewRequestWithContext(ctx, method, r.URL()+"/admin/fault", strings.NewReader(fault))
		require.NoError(t, err)
		a := do(req)
		require.NoError(t, a.err)
		require.Less(t, a.status, 300, "%s", a.body)
	}
	for _, r := range replicas {
		say(t.Context(), http.MethodPost, r)
		t.Cleanup(func() { say(context.WithoutCancel(t.Context()), http.MethodDelete, r) })
	}
}

// testOnePrompt: a burst of one prompt stays on its replica, whichever worker it comes
// through, until that replica has more than its share: 8 requests more than 1.25 times
// the mean. Then others get some too.
func (p *picks) testOnePrompt(t *testing.T) {
	body := func(int) string { return chat("one", longText(0)) }
	a := post(t.Context(), p.s, chatPath, body(0))
	require.True(t, a.ok(), "%+v", a)
	home := p.address(a.header.Get("x-modelsim-replica"))
	require.NoError(t, pass(t.Context(), ticks))
	require.Equal(t, map[string]int{home: 8}, p.burst(t, 8, body))
	hits := p.bursts(t, 3, 40, body)
	// The first 8 stay. Later ones may go to any replica that has had one by then.
	require.GreaterOrEqual(t, hits[home], 8, "%v", hits)
	require.Less(t, hits[home], 120, "%v", hits)
}

func (p *picks) replica(name string) *stack.Replica {
	i := slices.IndexFunc(p.s.Replicas, func(r *stack.Replica) bool { return r.Name == name })
	return p.s.Replicas[i]
}

func (p *picks) address(name string) string { return p.replica(name).Address() }

// by counts responses by replica.
func by(answers []answer) map[string]int {
	hits := map[string]int{}
	for _, a := range answers {
		hits[a.header.Get("x-modelsim-replica")]++
	}
	return hits
}

// testSlow: requests in flight show which replica is slow.
func (p *picks) testSlow(t *testing.T) {
	slow := p.s.Replicas[0]
	p.setFault(t, "delay=1s", slow)
	answers := underLoad(t, p.s, 16, func(l *load) { l.more(600) })
	require.Empty(t, failures(answers))
	require.Less(t, by(answers)[slow.Name], len(answers)/replicas/2, "%v", by(answers))
}

// testStopped: a replica that is stopped keeps the few requests that it has; all
// others go elsewhere, and the stopped ones get their responses when it continues.
func (p *picks) testStopped(t *testing.T) {
	stopped := p.s.Replicas[1]
	answers := underLoad(t, p.s, 16, func(l *load) {
		require.NoError(t, stopped.Pause(t.Context()))
		defer func() { require.NoError(t, stopped.Resume()) }()
		eventually(t, "the companion knows", func() (bool, error) { return p.isReady(stopped, false) })
		l.more(300)
	})
	require.Empty(t, failures(answers))
	p.comesBack(t, stopped)
}

// isReady asks the companion whether it reports a replica as ready.
func (p *picks) isReady(r *stack.Replica, want bool) (bool, error) {
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.s.Companion.URL()+"/v1/snapshot.json", nil)
	if err != nil {
		return false, err
	}
	a := do(req)
	if !a.ok() {
		return false, a.err
	}
	var twin struct {
		Pools []struct {
			Endpoints []struct {
				Address string
				Ready   bool
			}
		}
	}
	if err := json.Unmarshal(a.body, &twin); err != nil {
		return false, err
	}
	for _, e := range twin.Pools[0].Endpoints {
		if e.Address == r.Address() {
			return e.Ready == want, nil
		}
	}
	return false, fmt.Errorf("the companion does not know %s: %s", r.Address(), a.body)
}

// comesBack waits until a replica is picked.
func (p *picks) comesBack(t *testing.T, r *stack.Replica) {
	t.Helper()
	eventually(t, r.Name+" is picked", func() (bool, error) {
		a := post(t.Context(), p.s, chatPath, smallChat)
		return a.header.Get("x-modelsim-replica") == r.Name, a.err
	})
}

// testEjected: without the companion only the picker itself notices that a replica is
// dead, and that it is back.
func (p *picks) testEjected(t *testing.T) {
	const clients = 8
	ctx := context.WithoutCancel(t.Context()) // they outlive this test
	p.s.Companion.Kill()
	dead := p.s.Replicas[2]
	tries := func() int {
		hosts, err := p.s.Hosts(ctx, "llama")
		require.NoError(t, err)
		return hosts[dead.Address()]["cx_connect_fail"]
	}
	tried := 0
	answers := underLoad(t, p.s, clients, func(l *load) {
		dead.Kill()
		eventually(t, "it is ejected", func() (bool, error) {
			m, err := p.s.Metrics(ctx)
			return m.Sum("inlet_ejection_total", "pool", "llama", "reason", "connect") > 0, err
		})
		before := tries()
		l.more(400)
		tried = tries() - before
		require.NoError(t, dead.Start(ctx))
		p.comesBack(t, dead)
		l.more(100)
	})
	// It never has anything in flight, so that it would always be the first choice.
	require.Less(t, tried, 200)
	failed := failures(answers)
	require.LessOrEqual(t, len(failed), clients, "at most one for each client at the moment of the death")
	for _, a := range failed {
		require.NoError(t, a.err)
		entry, err := p.s.Access(t.Context(), a.header.Get("x-request-id"))
		require.NoError(t, err)
		require.Equal(t, "UC", entry.Flags, "%+v", entry) // the connection ended after the request was sent on it
	}
	require.NoError(t, p.s.Companion.Start(ctx))
	eventually(t, "Envoy has the new companion's snapshot", func() (bool, error) { return companionIsHeard(ctx, p.s) })
}

// testDraining: a replica that the list of endpoints drains finishes its requests and
// gets no new ones.
func (p *picks) testDraining(t *testing.T) {
	drained := p.s.Replicas[3]
	var all []string
	for _, r := range p.s.Replicas {
		all = append(all, r.Address())
	}
	answers := underLoad(t, p.s, 8, func(l *load) {
		require.NoError(t, p.s.SetDraining("llama", []string{drained.Address()}, all...))
		eventually(t, "the companion knows", func() (bool, error) { return p.isReady(drained, false) })
		eventually(t, "Envoy knows", func() (bool, error) { return companionIsHeard(t.Context(), p.s) })
		require.NoError(t, pass(t.Context(), ticks))
		l.more(100)
		before := p.total(drained)
		l.more(300)
		require.Equal(t, before, p.total(drained))
		require.NoError(t, p.s.SetEndpoints("llama", all...))
		p.comesBack(t, drained)
	})
	require.Empty(t, failures(answers))
}

func (p *picks) total(r *stack.Replica) int {
	all, err := p.stats("rq_total")
	require.NoError(p.t, err)
	return all[r.Address()]
}

// testBlind: the metrics of all replicas stop when one of them looked busy. Requests
// continue, and when the gauges expire they are spread only by requests in flight.
func (p *picks) testBlind(t *testing.T) {
	busy := p.s.Replicas[4]
	ctx, leave := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for range 30 { // from elsewhere, not through this Envoy
		others.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, busy.URL()+chatPath, strings.NewReader(chat("llama-3-8b", "hello")))
			if err == nil {
				req.Header.Set("x-modelsim-fault", "hang")
				do(req)
			}
		})
	}
	defer others.Wait()
	defer leave()
	body := func(int) string { return chat("blind", "hello") }
	eventually(t, "the busy one gets nothing", func() (bool, error) {
		hits := p.burst(t, 40, body)
		return hits[busy.Address()] == 0, nil
	})
	p.setFault(t, "metrics=off", p.s.Replicas...)
	answers := underLoad(t, p.s, 8, func(*load) {
		p.comesBack(t, busy) // its gauges have expired
	})
	require.Empty(t, failures(answers))
	require.NoError(t, pass(t.Context(), ticks)) // the workers still count each other's requests that have just ended
	hits := p.burst(t, 160, body)
	require.Len(t, hits, replicas)
	require.LessOrEqual(t, most(hits), 160/replicas*13/10, "%v", hits)
}
