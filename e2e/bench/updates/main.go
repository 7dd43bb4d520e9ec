// Command updates measures what new configurations cost while Envoy serves: the document lists many models and changes time and
// again, as a control plane's would. It prints Envoy's memory, and how long requests took at most, without updates and with them.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

var (
	models  = flag.Int("models", 2000, "models in the document")
	updates = flag.Int("updates", 30, "how often it changes")
	pause   = flag.Duration("pause", 500*time.Millisecond, "between two updates")
	builds  = flag.String("builds", "wasm,module", "builds of Inlet, with commas between them")
	clients = flag.Int("clients", 8, "clients that send requests meanwhile, each on a connection of its own")
	plugin  = flag.String("plugin", "", "another build of Inlet than this tree's")
	each    = flag.Bool("each", false, "print the memory after each update")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Printf("%d updates of a document with %d models (%d KB)\n\n", *updates, *models, len(document(0))>>10)
	fmt.Println("| build | Envoy before, MB | after the updates, MB | 5 s later, MB | a request before, ms: median, p99, most | during, ms: median, p99, most | an update, ms: median, most |")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- |")
	for abi := range strings.SplitSeq(*builds, ",") {
		if err := measure(ctx, abi); err != nil {
			fmt.Fprintln(os.Stderr, "updates:", err)
			os.Exit(1)
		}
	}
}

// document lists the models; each version differs a little from the one before.
func document(version int) string {
	var b strings.Builder
	b.WriteString("filters:\n  - bbr:\n      models:\n        - {name: llama, targets: [{pool: one}]}\n")
	for i := range *models {
		fmt.Fprintf(&b, "        - {name: team-%d-model-%d, targets: [{model: served-%d, pool: one, weight: 90}, {model: next-%d-%d, pool: one, weight: 10}]}\n",
			i%50, i, i, version, i)
	}
	b.WriteString("  - picker: {}\ncompanion: {cluster: inlet-companion}\n")
	return b.String()
}

func measure(ctx context.Context, abi string) error {
	s, err := stack.Start(ctx, stack.Options{
		ABI: abi, Chain: document(0), Updatable: true, Plugin: *plugin, Progress: os.Stderr,
		Pools: []stack.Pool{{Name: "one", Replicas: 2, Args: []string{"--speed", "0"}}},
	})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.WaitForSnapshot(ctx); err != nil {
		return err
	}
	l := start(ctx, s.URL())
	defer l.stop()
	if err := sleep(ctx, 5*time.Second); err != nil {
		return err
	}
	quiet := l.take()
	before, err := residentMB(s.EnvoyPID())
	if err != nil {
		return err
	}
	var took []time.Duration
	for i := range *updates {
		began := time.Now()
		if err := s.Update(ctx, func(o *stack.Options) { o.Chain = document(i + 1) }); err != nil {
			return err
		}
		took = append(took, time.Since(began))
		if *each {
			mb, _ := residentMB(s.EnvoyPID())
			fmt.Fprintf(os.Stderr, "update %d: %.0f MB, %v\n", i+1, mb, took[i].Round(time.Millisecond))
		}
		if err := sleep(ctx, *pause); err != nil {
			return err
		}
	}
	after, err := residentMB(s.EnvoyPID())
	if err != nil {
		return err
	}
	during := l.take()
	if err := sleep(ctx, 5*time.Second); err != nil {
		return err
	}
	later, err := residentMB(s.EnvoyPID())
	if err != nil {
		return err
	}
	slices.Sort(took)
	fmt.Printf("| %s | %.0f | %.0f | %.0f | %s | %s | %d, %d |\n", abi, before, after, later, quiet, during,
		took[len(took)/2].Milliseconds(), took[len(took)-1].Milliseconds())
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// load is requests under way.
type load struct {
	mu   sync.Mutex
	took times
	end  context.CancelFunc
	all  sync.WaitGroup
}

// times are how long requests took; one that failed is an hour.
type times []time.Duration

func (t times) String() string {
	slices.Sort(t)
	if len(t) == 0 {
		return "none"
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return fmt.Sprintf("%.1f, %.1f, %.1f", ms(t[len(t)/2]), ms(t[len(t)*99/100]), ms(t[len(t)-1]))
}

func start(ctx context.Context, url string) *load {
	l := &load{}
	ctx, l.end = context.WithCancel(ctx)
	for range *clients {
		l.all.Go(func() {
			c := &http.Client{Transport: &http.Transport{}}
			for ctx.Err() == nil {
				began, took := time.Now(), time.Hour
				if ask(ctx, c, url) == nil {
					took = time.Since(began)
				}
				if ctx.Err() != nil {
					return
				}
				l.mu.Lock()
				l.took = append(l.took, took)
				l.mu.Unlock()
				_ = sleep(ctx, 5*time.Millisecond)
			}
		})
	}
	return l
}

// take returns what was measured since the last time.
func (l *load) take() times {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.took
	l.took = nil
	return t
}

func (l *load) stop() {
	l.end()
	l.all.Wait()
}

func ask(ctx context.Context, c *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions",
		strings.NewReader(`{"model":"llama","messages":[{"role":"user","content":"hello"}],"max_tokens":2}`))
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

func residentMB(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(text))[1], 64)
	return pages * float64(os.Getpagesize()) / (1 << 20), err
}
