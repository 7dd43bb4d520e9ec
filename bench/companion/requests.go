package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/inlet-proxy/inlet/bench/figures"
	"github.com/inlet-proxy/inlet/bench/load"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// chatChain picks among all replicas.
const chatChain = `filters:
  - bbr: {models: [{name: tiny, targets: [{pool: llama}]}]}
  - picker: {profile: sticky, endpoints: 3}
companion: {cluster: inlet-companion}
`

// still is the mode in which nobody scrapes: its Envoy picks by the last snapshot.
const still = "still"

// gateway is one mode of the benchmark of requests: an Envoy, and who scrapes for it.
type gateway struct {
	name  string
	stack *stack.Stack
	runs  []int // processes that run in its turn; all others are stopped by a signal
}

// settle is for what a stopped process has to catch up with.
const settle = time.Second

// requests measures what scraping takes from the requests of the same machine: by nobody, by a companion process, and by
// the companion in Envoy. The modes take turns, and in each turn only its own processes run.
func requests(ctx context.Context, o options) error {
	f, stop, err := startFleet(ctx, o)
	if err != nil {
		return err
	}
	defer stop()
	process, err := f.gateway(ctx, false)
	if err != nil {
		return err
	}
	defer process.Close()
	embedded, err := f.gateway(ctx, true)
	if err != nil {
		return err
	}
	defer embedded.Close()
	a, c, b := process.EnvoyPID(), process.Companion.PID(), embedded.EnvoyPID()
	all := []int{a, c, b}
	defer func() { _ = only(all, all) }() // whatever is stopped could not be ended
	gateways := []gateway{{still, process, []int{a}}, {"process", process, []int{a, c}}, {"embedded", embedded, []int{b}}}

	out, err := figures.Create(o.out)
	if err != nil {
		return err
	}
	for _, conns := range []int{1, 8} {
		took := map[string][]*load.Result{}
		for turn := range o.repeat {
			for i := range gateways {
				g := gateways[(i+turn)%len(gateways)]
				fmt.Fprintf(os.Stderr, "\r%d connections, turn %d of %d: %-10s", conns, turn+1, o.repeat, g.name)
				if err := only(g.runs, all); err != nil {
					return err
				}
				r, err := f.load(ctx, g.stack, conns)
				if err != nil {
					return fmt.Errorf("%s: %w", g.name, err)
				}
				took[g.name] = append(took[g.name], r)
			}
		}
		reportRequests(out, fmt.Sprintf("%dr-c%d", o.replicas, conns), gateways, took)
	}
	fmt.Fprintln(os.Stderr)
	for _, g := range gateways[1:] {
		rss, err := residentMB(g.stack.EnvoyPID())
		if err != nil {
			return err
		}
		out.Line("envoy", g.name, "rss_mb", rss, "MB")
	}
	fmt.Printf("%d replicas of %d bytes every %s; median of %d × %s\n", o.replicas, o.page, o.interval, o.repeat, o.duration)
	out.Table(os.Stdout)
	return out.Close()
}

// gateway starts an Envoy whose pool is the fleet.
func (f *fleet) gateway(ctx context.Context, embedded bool) (*stack.Stack, error) {
	_, port, err := net.SplitHostPort(f.address)
	if err != nil {
		return nil, err
	}
	pool := stack.Pool{Name: "llama"}
	for i := range f.replicas {
		pool.Addresses = append(pool.Addresses, addressOf(i, port))
	}
	s, err := stack.Start(ctx, stack.Options{
		ABI: stack.Module, Chain: chatChain, Pools: []stack.Pool{pool}, Embedded: embedded, Scrape: f.interval, Progress: os.Stderr,
		Edit: discardAccessLog,
	})
	if err != nil {
		return nil, err
	}
	if err := s.WaitForSnapshot(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// discardAccessLog has Envoy write its access log where nobody reads it.
func discardAccessLog(b *bootstrapv3.Bootstrap) {
	network := b.GetStaticResources().GetListeners()[0].GetFilterChains()[0].GetFilters()[0]
	m := &hcmv3.HttpConnectionManager{}
	if network.GetTypedConfig().UnmarshalTo(m) != nil {
		return
	}
	m.GetAccessLog()[0].Name = "envoy.access_loggers.file"
	_ = m.GetAccessLog()[0].GetTypedConfig().MarshalFrom(&filev3.FileAccessLog{Path: "/dev/null"})
	_ = network.GetTypedConfig().MarshalFrom(m)
}

// only lets these of all processes run.
func only(these, all []int) error {
	for _, pid := range all {
		signal := syscall.SIGSTOP
		if slices.Contains(these, pid) {
			signal = syscall.SIGCONT
		}
		if err := syscall.Kill(pid, signal); err != nil {
			return err
		}
	}
	return nil
}

// load sends short chats, no two alike.
func (f *fleet) load(ctx context.Context, s *stack.Stack, conns int) (*load.Result, error) {
	body := `{"messages":[{"role":"user","content":"` + load.Number + strings.Repeat(" Why is the sky blue?", 30) + `"}],"model":"tiny"}`
	l := load.Load{
		Address: strings.TrimPrefix(s.URL(), "http://"), Request: load.NewRequest("/v1/chat/completions", []byte(body)), Answer: len(models), Conns: conns,
	}
	if _, err := l.Run(ctx, settle); err != nil {
		return nil, err
	}
	return l.Run(ctx, f.duration)
}

// reportRequests writes the medians over the turns. What a mode adds is the median of its differences to the still mode in the same turn.
func reportRequests(out *figures.File, name string, gateways []gateway, took map[string][]*load.Result) {
	for _, g := range gateways {
		var rates []float64
		for _, r := range took[g.name] {
			rates = append(rates, r.Rate())
		}
		for _, p := range []struct {
			name string
			at   float64
		}{{"p50", 0.5}, {"p99", 0.99}} {
			var times, added []float64
			for i, r := range took[g.name] {
				us := float64(r.Percentile(p.at).Microseconds())
				times, added = append(times, us), append(added, us-float64(took[still][i].Percentile(p.at).Microseconds()))
			}
			out.Line(name, g.name, p.name+"_us", middle(times), "us")
			if g.name != still {
				out.Line(name, g.name, "added_"+p.name+"_us", middle(added), "us")
			}
		}
		out.Line(name, g.name, "rps", middle(rates), "1/s")
	}
}

func middle(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
