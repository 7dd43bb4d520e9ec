package e2e_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/e2e/stack"
	"github.com/inlet-proxy/inlet/shared/hosttest"
)

// Do implements hosttest.Gateway.
func (g *gateway) Do(step *hosttest.Step) (*hosttest.Outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience+step.After)
	defer cancel()
	logged := len(g.stack.EnvoyErrors())
	before, err := g.prepare(ctx, step)
	if err != nil {
		return nil, err
	}
	x, err := g.exchange(step)
	if err == nil {
		err = x.wait(ctx, step)
	}
	if err == nil {
		err = g.end(ctx, x, step)
	}
	if err != nil {
		return nil, errors.Join(err, errors.New("--- log\n"+strings.Join(g.logged(logged), "\n")))
	}
	o := x.outcome()
	if step.Finish != "" {
		o.Calls = nil // the metrics of the step that sent the request
	}
	if before != nil {
		o.Metrics, err = g.growth(ctx, before, step.Expect.Metrics)
	}
	o.Log = g.logged(logged)
	o.Trap = trap(o.Log)
	return &o, err
}

// prepare puts the gateway into the state that the step begins with, and returns the
// metrics before it if the step checks them.
func (g *gateway) prepare(ctx context.Context, step *hosttest.Step) (stack.Metrics, error) {
	changed := false
	if step != g.last {
		g.last = step
		g.quota.Switch(step, time.Now())
		if step.Pools != nil {
			g.mu.Lock()
			g.pools = step.Pools
			g.mu.Unlock()
		}
		if err := pass(ctx, step.After); err != nil {
			return nil, err
		}
		changed = step.Pools != nil || g.workers > 1
	}
	// Which replica is right depends on what the workers know about each other.
	if changed || g.workers > 1 && step.Expect.Replica != nil {
		if err := g.spread(ctx); err != nil {
			return nil, err
		}
	}
	if step.Expect.Metrics == nil {
		return nil, nil
	}
	return g.quiet(ctx)
}

// exchange sends the step's request, or lets the replica of a held one respond.
func (g *gateway) exchange(step *hosttest.Step) (*exchange, error) {
	if x := g.held[step.Finish]; x != nil {
		delete(g.held, step.Finish)
		x.letAnswer()
		return x, nil
	}
	x, err := send(strings.TrimPrefix(g.stack.URL(), "http://"), step)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	g.current = x
	g.mu.Unlock()
	go x.run()
	return x, nil
}

// underWay is the request that replicas and services now receive.
func (g *gateway) underWay() *exchange {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.current
}

// end finishes completed exchanges, and waits until their traces are gone.
func (g *gateway) end(ctx context.Context, x *exchange, step *hosttest.Step) error {
	if step.Hold != "" {
		g.held[step.Hold] = x
		return nil
	}
	x.leave()
	if step.Finish == "" && step.Request.Cancel == "" {
		return nil
	}
	_, err := g.quiet(ctx)
	return err
}

// quiet waits until Envoy has no requests except the held ones, and returns the
// metrics of that time.
func (g *gateway) quiet(ctx context.Context) (m stack.Metrics, err error) {
	err = poll(ctx, "no request is left in Envoy", func() (bool, error) {
		m, err = g.stack.Metrics(ctx)
		return m.Sum("envoy_http_downstream_rq_active", "envoy_http_conn_manager_prefix", "gateway") == float64(len(g.held)), err
	})
	return m, err
}

// growth is the increase of Inlet's metrics. It waits for the expected values, because
// histograms appear in a later scrape.
func (g *gateway) growth(ctx context.Context, before stack.Metrics, want map[string]int64) (map[string]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience/10)
	defer cancel()
	was := series(before)
	var grown map[string]int64
	for scrapes := 1; ; scrapes++ {
		m, err := g.quiet(ctx)
		if errors.Is(err, context.DeadlineExceeded) && grown != nil {
			return grown, nil // not the expected value, which Check will report
		}
		if err != nil {
			return nil, err
		}
		grown = series(m)
		maps.DeleteFunc(grown, func(name string, n int64) bool { return n == was[name] })
		for name := range grown {
			grown[name] -= was[name]
		}
		expected := &hosttest.Step{Expect: hosttest.Expect{Metrics: want}}
		if scrapes > 1 && hosttest.Check(expected, &hosttest.Outcome{Metrics: grown}) == nil || ctx.Err() != nil {
			return grown, nil
		}
	}
}

// series are a scrape's metrics under the names that scenarios use.
func series(m stack.Metrics) map[string]int64 {
	values := map[string]int64{}
	for _, sample := range m {
		if strings.HasPrefix(sample.Name, "envoy_") || strings.HasSuffix(sample.Name, "_bucket") {
			continue
		}
		var labels []string
		for _, name := range slices.Sorted(maps.Keys(sample.Labels)) {
			labels = append(labels, name, sample.Labels[name])
		}
		values[hosttest.Series(sample.Name, labels...)] += int64(sample.Value)
	}
	return values
}

// logged are the errors in Envoy's log after the first n.
func (g *gateway) logged(n int) []string {
	if g.stack == nil {
		return nil
	}
	return g.stack.EnvoyErrors()[n:]
}

// trap finds the crash of a wasm VM in the log.
func trap(lines []string) string {
	for _, line := range lines {
		if strings.Contains(line, "Function: proxy_on_") && strings.Contains(line, "failed") {
			return line
		}
	}
	return ""
}
