// Command upload measures the memory that slow uploads of large bodies need: a number of clients send 8 MB each within
// some seconds, with the model at the beginning of the body, so that a request is forwarded while it arrives, or at its
// end, so that it is held. It prints the peak memory of Envoy.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

var (
	clients = flag.Int("clients", 16, "concurrent uploads")
	size    = flag.Int("size", 8<<20, "bytes of a body")
	builds  = flag.String("builds", "module,wasm", "builds of Inlet, comma separated")
	lasts   = flag.Duration("lasts", 4*time.Second, "how long one upload takes")
)

const document = "filters: [bbr: {models: [{name: m, targets: [{model: renamed, pool: one}]}]}]\n"

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Println("| build | route | model | Envoy before, MB | at most, MB |\n| --- | --- | --- | --- | --- |")
	for abi := range strings.SplitSeq(*builds, ",") {
		for _, retries := range []bool{true, false} {
			for _, first := range []bool{false, true} {
				if err := measure(ctx, abi, retries, first); err != nil {
					fmt.Fprintln(os.Stderr, "upload:", err)
					os.Exit(1)
				}
			}
		}
	}
}

// measure starts an Envoy and prints a line.
func measure(ctx context.Context, abi string, retries, first bool) error {
	s, err := stack.Start(ctx, stack.Options{
		ABI: abi, Chain: document, NoCompanion: true, Workers: 1,
		Pools: []stack.Pool{{Name: "one", Replicas: 1, Args: []string{"--speed", "0"}}},
		Edit: func(b *bootstrapv3.Bootstrap) {
			if !retries {
				withoutRetries(b)
			}
		},
	})
	if err != nil {
		return err
	}
	defer s.Close()
	before, err := resident(s)
	if err != nil {
		return err
	}
	most, err := watch(s, func() error { return uploads(ctx, s, first) })
	if err != nil {
		return err
	}
	route, where := "with retries", "at the end"
	if !retries {
		route = "without"
	}
	if first {
		where = "at the beginning"
	}
	fmt.Printf("| %s | %s | %s | %d | %d |\n", abi, route, where, before, most)
	return nil
}

// withoutRetries removes the retry policy from the routes: with one, Envoy's router keeps every body until the response
// begins.
func withoutRetries(b *bootstrapv3.Bootstrap) {
	config := b.GetStaticResources().GetListeners()[0].GetFilterChains()[0].GetFilters()[0].GetTypedConfig()
	m := &hcmv3.HttpConnectionManager{}
	if err := config.UnmarshalTo(m); err != nil {
		panic(err)
	}
	m.GetRouteConfig().GetVirtualHosts()[0].RetryPolicy = nil
	if err := config.MarshalFrom(m); err != nil {
		panic(err)
	}
}

// watch returns the peak memory of Envoy while f runs, in MB.
func watch(s *stack.Stack, f func() error) (most int, err error) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	for tick := time.Tick(20 * time.Millisecond); ; <-tick {
		now, err := resident(s)
		if err != nil {
			return 0, err
		}
		most = max(most, now)
		select {
		case err := <-done:
			return most, err
		default:
		}
	}
}

// resident is Envoy's memory in MB.
func resident(s *stack.Stack) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.EnvoyPID()))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	return kb >> 10, err
}

// uploads sends all bodies concurrently.
func uploads(ctx context.Context, s *stack.Stack, first bool) error {
	var all sync.WaitGroup
	errs := make(chan error, *clients)
	for range *clients {
		all.Go(func() { errs <- upload(ctx, s, first) })
	}
	all.Wait()
	for range *clients {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

func upload(ctx context.Context, s *stack.Stack, first bool) error {
	body := `{"input":"a","x":"` + strings.Repeat("some words, ", *size/12) + `","model":"m"}`
	if first {
		body = `{"model":"m","input":"a","x":"` + strings.Repeat("some words, ", *size/12) + `"}`
	}
	from, to := io.Pipe()
	go func() {
		const pieces = 100
		for i := range pieces {
			if _, err := io.WriteString(to, body[i*len(body)/pieces:(i+1)*len(body)/pieces]); err != nil {
				return // the response came before
			}
			time.Sleep(*lasts / pieces)
		}
		_ = to.Close()
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+"/v1/embeddings", from)
	if err != nil {
		return err
	}
	req.ContentLength = int64(len(body))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("status %d: %.300s", resp.StatusCode, text)
	}
	return nil
}
