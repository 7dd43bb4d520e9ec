package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// warmUp is for connections, first scrapes and first snapshots.
const warmUp = 3 * time.Second

// companion starts the companion and proxies that call it, and measures both.
func (f *fleet) companion(ctx context.Context) (sample, error) {
	config := filepath.Join(f.dir, "companion.yaml")
	_, port, err := net.SplitHostPort(f.address)
	if err != nil {
		return nil, err
	}
	text := fmt.Appendf(nil, "listen: 127.0.0.1:0\nscrape: {interval: %s}\npools:\n- name: llama\n  static:\n", f.interval)
	for i := range f.replicas {
		text = fmt.Appendf(text, "  - %q\n", addressOf(i, port))
	}
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return nil, err
	}
	p, err := start(ctx, f.binary(), "--config", config, "--log-level", "warn")
	if err != nil {
		return nil, err
	}
	defer p.stop()
	address, err := p.line("companion listening on ")
	if err != nil {
		return nil, err
	}

	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * f.proxies}}
	replicas := make([]uint64, f.replicas)
	for i := range replicas {
		replicas[i] = endpoint.ReplicaID(addressOf(i, port))
	}
	proxies := make([]*proxy, f.proxies)
	for i := range proxies {
		proxies[i] = &proxy{
			began: f.began, replicas: replicas, client: client, url: "http://" + address,
			name: fmt.Sprintf("proxy-%d", i), seen: map[string]int{},
		}
		running.Go(func() { proxies[i].poll(ctx) })
		running.Go(func() { proxies[i].tell(ctx) })
	}
	if err := sleep(ctx, warmUp); err != nil {
		return nil, err
	}
	before, err := count(client, "http://"+address)
	if err != nil {
		return nil, err
	}
	s, err := f.measure(ctx, p, func() {
		for _, p := range proxies {
			p.measuring.Store(true)
		}
	})
	if err != nil {
		return nil, err
	}
	after, err := count(client, "http://"+address)
	if err != nil {
		return nil, err
	}
	cancel()
	running.Wait()
	var visible []float64
	for _, p := range proxies {
		visible = append(visible, p.visible...)
		err = errors.Join(err, p.err, p.untold)
	}
	if len(visible) == 0 || err != nil {
		return nil, errors.Join(err, fmt.Errorf("%d changes seen", len(visible)))
	}
	slices.Sort(visible)
	s.scraped(f, after.scrapes-before.scrapes, after.at.Sub(before.at))
	s["visible_p50_ms"] = visible[len(visible)/2]
	s["visible_p99_ms"] = visible[len(visible)*99/100]
	per := func(n float64) float64 { return n / after.at.Sub(before.at).Seconds() }
	s["bytes_per_s"] = per(after.sent - before.sent)
	s["tells_per_s"] = per(after.tells - before.tells)
	s["told_bytes_per_s"] = per(after.told - before.told)
	s["relayed_bytes_per_s"] = per(after.relayed - before.relayed)
	return s, nil
}

// measure runs for the duration and returns what the process used meanwhile.
func (f *fleet) measure(ctx context.Context, p *process, begin func()) (sample, error) {
	before, err := p.cpu()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	begin()
	if err := sleep(ctx, f.duration); err != nil {
		return nil, err
	}
	after, err := p.cpu()
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	rss, err := p.rss()
	return sample{"cpu_cores": float64(after-before) / float64(took), "rss_mb": rss}, err
}

// scraped records how much was read.
func (s sample) scraped(f *fleet, scrapes float64, took time.Duration) {
	s["scrapes_per_s"] = scrapes / took.Seconds()
	s["scraped_bytes_per_s"] = s["scrapes_per_s"] * float64(f.page)
	s["cpu_us_per_scrape"] = s["cpu_cores"] * 1e6 / s["scrapes_per_s"]
}

// counts are the companion's counters.
type counts struct {
	scrapes, sent        float64
	tells, told, relayed float64
	at                   time.Time
}

func count(client *http.Client, url string) (c counts, err error) {
	resp, err := client.Get(url + "/metrics")
	if err != nil {
		return c, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	c.at = time.Now()
	if err != nil {
		return c, err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n := c.named(name); n != nil {
			if *n, err = strconv.ParseFloat(value, 64); err != nil {
				return c, err
			}
		}
	}
	return c, nil
}

// named is where a sample of the companion's metrics belongs, nil if nowhere.
func (c *counts) named(sample string) *float64 {
	switch sample {
	case `inlet_companion_scrapes_total{pool="llama",result="ok"}`:
		return &c.scrapes
	case "inlet_companion_sent_bytes_total":
		return &c.sent
	case `inlet_companion_relay_tells_total{result="taken"}`:
		return &c.tells
	case "inlet_companion_relay_received_bytes_total":
		return &c.told
	case "inlet_companion_relay_sent_bytes_total":
		return &c.relayed
	}
	return nil
}

// floor starts the baseline loop, which only reads.
func (f *fleet) floor(ctx context.Context) (sample, error) {
	p, err := start(ctx, f.self, append(f.args(), "-role", "floor", "-address", f.address)...)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	if err := sleep(ctx, warmUp); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := p.cmd.Process.Signal(countSignal); err != nil {
		return nil, err
	}
	before, err := p.number()
	if err != nil {
		return nil, err
	}
	s, err := f.measure(ctx, p, func() {})
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	if err := p.cmd.Process.Signal(countSignal); err != nil {
		return nil, err
	}
	after, err := p.number()
	s.scraped(f, after-before, took)
	return s, err
}

func (p *process) number() (float64, error) {
	text, err := p.line("scrapes ")
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(text, 64)
}

// floor reads every replica's page once per interval, over kept connections, and discards it. It is written like a
// scraper in Go: one goroutine per replica.
func floor(ctx context.Context, o options, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	var scrapes atomic.Uint64
	for i := range o.replicas {
		go func() {
			if err := readAll(ctx, o, addressOf(i, port), &scrapes); err != nil && ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "floor:", err)
				os.Exit(1)
			}
		}()
	}
	for signal := range signals(ctx) {
		_ = signal
		fmt.Println("scrapes", scrapes.Load())
	}
	return nil
}

func readAll(ctx context.Context, o options, address string, scrapes *atomic.Uint64) error {
	if err := sleep(ctx, rand.N(o.interval)); err != nil {
		return nil
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	request := []byte("GET /metrics HTTP/1.1\r\nHost: " + address + "\r\n\r\n")
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if _, err := c.Write(request); err != nil {
			return err
		}
		if err := discard(c, o.page); err != nil {
			return err
		}
		scrapes.Add(1)
	}
}

var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// discard reads one response with a body of this many bytes.
func discard(c net.Conn, body int) error {
	buffer := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buffer)
	for want := -1; want != 0; {
		n, err := c.Read(buffer[:])
		if err != nil {
			return err
		}
		if want < 0 {
			want = bytes.Index(buffer[:n], []byte("\r\n\r\n")) + 4 + body
		}
		want -= n
	}
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
