package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// evidenceChain ejects permanently, so that a replica that is picked again was not ejected.
const evidenceChain = `
filters:
  - bbr: {models: [{name: llama, targets: [{model: llama-3-8b, pool: llama}]}]}
  - picker: {explainHeader: x-inlet-why, health: {failures: 2, eject: 1h, maxEject: 1h, firstByte: 300ms}, slowStart: 2s}
companion: {cluster: inlet-companion}
`

// silenceChain ejects for one failure: after the first, a replica gets nothing for health.eject.
var silenceChain = strings.Replace(evidenceChain, "failures: 2", "failures: 1", 1)

// TestEvidence: what counts as a replica's failure, and what does not.
func TestEvidence(t *testing.T) {
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			p := startEvidence(t, abi, evidenceChain)
			t.Run("a full queue is no failure", p.testFullQueue)
			t.Run("a new replica warms up without traffic", p.testIdleStart)
			t.Run("a restarted process has no prompts", p.testStartedAnew)
		})
	}
}

// TestSilence: a replica that never responds although its metrics do is ejected, and keeps no prompt.
func TestSilence(t *testing.T) {
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			p := startEvidence(t, abi, silenceChain)
			t.Run("before headers", func(t *testing.T) { p.testSilence(t, p.s.Replicas[0], "silent") })
			t.Run("after headers", func(t *testing.T) { p.testSilence(t, p.s.Replicas[1], "silent-after-headers") })
		})
	}
}

func startEvidence(t *testing.T, abi, chain string) *picks {
	s := stack.ForTest(t, stack.Options{
		ABI: abi, Workers: 1, Chain: chain,
		Pools: []stack.Pool{{Name: "llama", Replicas: 4, Args: []string{"--model", "llama-3-8b", "--speed", "0"}}},
	})
	waitForPicks(t, s)
	return &picks{t: t, s: s}
}

func (p *picks) ejections(t *testing.T) float64 {
	m, err := p.s.Metrics(t.Context())
	require.NoError(t, err)
	return m.Sum("inlet_ejection_total", "pool", "llama")
}

// ask sends a new prompt and returns the replica that responded.
func (p *picks) ask(t *testing.T, n int) answer {
	return post(t.Context(), p.s, chatPath, chat("llama", longText(n)))
}

// testFullQueue: after three 503 the replica is as good as any.
func (p *picks) testFullQueue(t *testing.T) {
	full := p.s.Replicas[0]
	p.setFault(t, "queue-full=3", full)
	refused, n := 0, 0
	eventually(t, "it has refused three", func() (bool, error) {
		for range 8 { // some of them are its own
			n++
			a := p.ask(t, n)
			require.NoError(t, a.err)
			if a.status == 503 {
				require.Contains(t, string(a.body), "The request queue is full.")
				refused++
			}
		}
		return refused == 3, nil
	})
	eventually(t, "it responds again", func() (bool, error) {
		n++
		a := p.ask(t, n)
		require.Equal(t, 200, a.status)
		return a.header.Get("x-modelsim-replica") == full.Name, a.err
	})
	require.Zero(t, p.ejections(t))
}

// testIdleStart: slow start ends even without requests.
func (p *picks) testIdleStart(t *testing.T) {
	var all []string
	for _, r := range p.s.Replicas {
		all = append(all, r.Address())
	}
	late := p.s.Replicas[3]
	require.NoError(t, p.s.SetEndpoints("llama", all[:3]...))
	eventually(t, "the companion has dropped it", func() (bool, error) {
		_, err := p.isReady(late, true)
		return err != nil, nil
	})
	require.NoError(t, pass(t.Context(), ticks))
	require.NoError(t, p.s.SetEndpoints("llama", all...))
	eventually(t, "it is ready", func() (bool, error) { ready, _ := p.isReady(late, true); return ready, nil })
	require.NoError(t, pass(t.Context(), 3*time.Second)) // slow start, without requests
	hits := map[string]int{}
	for i := range 60 {
		hits[p.ask(t, 1000+i).header.Get("x-modelsim-replica")]++
	}
	require.GreaterOrEqual(t, hits[late.Name], 5, "%v", hits)
}

// testStartedAnew: another process at the same address has computed nothing.
func (p *picks) testStartedAnew(t *testing.T) {
	ctx := context.WithoutCancel(t.Context())
	a := p.ask(t, 2000)
	home := p.replica(a.header.Get("x-modelsim-replica"))
	a = p.ask(t, 2000)
	require.Equal(t, home.Name, a.header.Get("x-modelsim-replica"))
	require.NotContains(t, a.header.Get("x-inlet-why"), " hit=0/")
	home.Kill()
	eventually(t, "the companion knows", func() (bool, error) { return p.isReady(home, false) })
	require.NoError(t, pass(t.Context(), 3*time.Second)) // the time that a server takes to start, without requests
	require.NoError(t, home.Start(ctx))
	eventually(t, "it is ready", func() (bool, error) { return p.isReady(home, true) })
	require.NoError(t, pass(t.Context(), ticks))
	a = p.ask(t, 2000)
	require.Equal(t, 200, a.status)
	require.Contains(t, a.header.Get("x-inlet-why"), " hit=0/")
	require.Zero(t, p.ejections(t))
}

func (p *picks) testSilence(t *testing.T, sick *stack.Replica, fault string) {
	p.setFault(t, fault, sick)
	before := p.ejections(t)
	n := 3000
	var lost []int
	// How long a request must wait to count depends on how soon the others respond, so each round waits twice as long.
	for wait := 3 * time.Second; p.ejections(t) == before; wait *= 2 {
		require.Less(t, wait, time.Minute, "it is not ejected")
		lost = append(lost, p.giveUp(t, n, wait)...)
		n += 100
	}
	require.NotEmpty(t, lost)
	m, err := p.s.Metrics(t.Context())
	require.NoError(t, err)
	require.Positive(t, m.Sum("inlet_ejection_total", "pool", "llama", "reason", "silent"))
	for _, n := range lost {
		a := p.ask(t, n)
		require.Equal(t, 200, a.status)
		require.NotEqual(t, sick.Name, a.header.Get("x-modelsim-replica"))
		why := a.header.Get("x-inlet-why")
		require.True(t, strings.Contains(why, " hit=0/"), "%s", fmt.Sprint(n, why))
	}
}

// giveUp sends prompts, most of them at once, and returns those that got no response in time. Some are sent when the
// others are on their way: only what other replicas respond to later shows that the silent one should have.
func (p *picks) giveUp(t *testing.T, first int, wait time.Duration) (lost []int) {
	const atOnce, later = 40, 20
	ctx, leave := context.WithTimeout(t.Context(), wait)
	defer leave()
	var all sync.WaitGroup
	var mu sync.Mutex
	ask := func(n int) {
		if a := post(ctx, p.s, chatPath, chat("llama", longText(n))); a.err != nil {
			mu.Lock()
			defer mu.Unlock()
			lost = append(lost, n)
		}
	}
	for n := range atOnce {
		all.Go(func() { ask(first + n) })
	}
	for n := range later {
		all.Go(func() {
			if pass(ctx, wait/10) == nil {
				ask(first + atOnce + n)
			}
		})
	}
	all.Wait()
	return lost
}
