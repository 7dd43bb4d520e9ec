// Command companion measures the companion at work: it scrapes a thousand replicas,
// and proxies get their state and, through it, that of each other. Next to it runs the
// minimal scraper as a baseline: a loop that reads the same bytes at the same rate and
// does nothing with them. The replicas are another process, so that each mode's CPU
// time is its own. The modes take turns, so that a slow moment affects all of them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/inlet-proxy/inlet/bench/figures"
)

type options struct {
	replicas, proxies, page int
	interval, duration      time.Duration
	repeat                  int
	out                     string
}

func main() {
	var o options
	flag.IntVar(&o.replicas, "replicas", 1000, "replicas to scrape")
	flag.IntVar(&o.proxies, "proxies", 16, "proxies that poll it")
	flag.IntVar(&o.page, "page", 50_000, "bytes of a replica's metrics")
	flag.DurationVar(&o.interval, "interval", 100*time.Millisecond, "between two scrapes of a replica")
	flag.DurationVar(&o.duration, "duration", 10*time.Second, "how long each mode is measured each time")
	flag.IntVar(&o.repeat, "repeat", 3, "how many times each mode runs; the median is reported")
	flag.StringVar(&o.out, "out", "bench/out/companion.jsonl", "file for the figures, one JSON object per line")
	chats := flag.Bool("requests", false, "measure instead what the companion, as a process and inside Envoy, takes from requests")
	role := flag.String("role", "", "role of a child process: replicas or floor")
	address := flag.String("address", "", "of the replicas, for floor")
	began := flag.Int64("began", 0, "when the replicas' clock began, in Unix microseconds")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch *role {
	case "replicas":
		err = serveReplicas(ctx, o, time.UnixMicro(*began))
	case "floor":
		err = floor(ctx, o, *address)
	default:
		if *chats {
			err = requests(ctx, o)
			break
		}
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// sample is the result of one turn of one mode, by metric.
type sample map[string]float64

// mode is one way to scrape the fleet.
type mode struct {
	name string
	turn func(context.Context) (sample, error)
}

// fleet is the replicas, which run all the time.
type fleet struct {
	options
	dir     string // for files
	self    string // this program
	began   time.Time
	address string // ip:port of the first; addressOf has the others
}

// metrics are the columns, with their units.
var metrics = [][2]string{
	{"cpu_cores", "cores"},
	{"cpu_us_per_scrape", "us"},
	{"scrapes_per_s", "1/s"},
	{"scraped_bytes_per_s", "B/s"},
	{"visible_p50_ms", "ms"},
	{"visible_p99_ms", "ms"},
	{"bytes_per_s", "B/s"},
	{"tells_per_s", "1/s"},
	{"told_bytes_per_s", "B/s"},
	{"relayed_bytes_per_s", "B/s"},
	{"rss_mb", "MB"},
}

func run(ctx context.Context, o options) error {
	f, stop, err := startFleet(ctx, o)
	if err != nil {
		return err
	}
	defer stop()
	modes := []mode{{"companion", f.companion}, {"floor", f.floor}}
	samples := map[string][]sample{}
	for turn := range o.repeat {
		for i := range modes {
			m := modes[(i+turn)%len(modes)]
			fmt.Fprintf(os.Stderr, "\rturn %d of %d: %-12s", turn+1, o.repeat, m.name)
			s, err := m.turn(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			samples[m.name] = append(samples[m.name], s)
		}
	}
	fmt.Fprintln(os.Stderr)
	return report(o, modes, samples)
}

func report(o options, modes []mode, samples map[string][]sample) error {
	file, err := figures.Create(o.out)
	if err != nil {
		return err
	}
	for _, m := range modes {
		for _, metric := range metrics {
			var values []float64
			for _, s := range samples[m.name] {
				if v, ok := s[metric[0]]; ok {
					values = append(values, v)
				}
			}
			if len(values) > 0 {
				slices.Sort(values)
				file.Line(fmt.Sprintf("%dr-%dp", o.replicas, o.proxies), m.name, metric[0], values[len(values)/2], metric[1])
			}
		}
	}
	fmt.Printf("%d replicas of %d bytes every %s, %d proxies; median of %d × %s\n", o.replicas, o.page, o.interval, o.proxies, o.repeat, o.duration)
	file.Table(os.Stdout)
	return file.Close()
}

func startFleet(ctx context.Context, o options) (*fleet, func(), error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "bench-companion-")
	if err != nil {
		return nil, nil, err
	}
	f := &fleet{options: o, dir: dir, self: self, began: time.Now()}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", f.binary(), "./cmd/companion")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, nil, fmt.Errorf("build the companion: %w", err)
	}
	p, err := start(ctx, self, append(o.args(), "-role", "replicas", "-began", fmt.Sprint(f.began.UnixMicro()))...)
	if err != nil {
		return nil, nil, err
	}
	stop := func() {
		p.stop()
		os.RemoveAll(dir)
	}
	if f.address, err = p.line("replicas listening on "); err != nil {
		stop()
		return nil, nil, err
	}
	return f, stop, nil
}

func (f *fleet) binary() string { return filepath.Join(f.dir, "companion") }

// args are the options that a process of this program needs.
func (o options) args() []string {
	return strings.Fields(fmt.Sprintf("-replicas %d -page %d -interval %s", o.replicas, o.page, o.interval))
}
