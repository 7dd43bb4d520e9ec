package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/bench/figures"
	"github.com/inlet-proxy/inlet/bench/upstream"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// screened is the case of one streamed response at a time whose text is screened, for the delay of each event.
var screened = chatCase{name: "sse-200-screened", conns: 1, size: 4 << 10, model: upstream.Model, events: 200}

// screenPart redacts all that is found in responses, without a call.
const screenPart = "guardrail: {providers: [{name: local, local: {detect: all}}], policies: [{on: response, use: [local], action: redact}]}"

// screenedSpecs are its modes. The others are compared with the first. A provider that is called gets a mode of its own.
var screenedSpecs = []spec{
	{name: "none", abi: stack.None},
	{name: "screen-wasm", abi: stack.Wasm, chain: document(screenPart)},
	{name: "screen-module", abi: stack.Module, chain: document(screenPart)},
}

// waits is how many events more must come before one is let go: a word may go on in the next one.
func (m *mode) waits() int {
	if m.has("guardrail") {
		return 1
	}
	return 0
}

// delays are those of the events of some streams, in µs.
type delays struct {
	first          float64   // from the request to the first event: the median
	event, release []float64 // from when an event was sent, and from when the one was that lets it go; sorted
}

// streamsATurn is how many streams each mode gets in a turn.
const streamsATurn = 3

// runScreened measures that case. The modes take turns.
func runScreened(ctx context.Context, o options, f *figures.File) error {
	if !matches(o.cases, screened.name) {
		return nil
	}
	var wanted []spec
	for i, s := range screenedSpecs {
		if i == 0 || matches(o.modes, s.name) {
			wanted = append(wanted, s)
		}
	}
	b, err := start(ctx, wanted, size{workers: 1, replicas: 1})
	if err != nil {
		return err
	}
	defer b.close()
	for _, m := range b.modes {
		if err := b.checkScreened(ctx, m); err != nil {
			return fmt.Errorf("%s %s: %w", screened.name, m.name, err)
		}
	}
	all := make([][]delays, len(b.modes))
	for turn := range o.repeat {
		fmt.Fprintf(os.Stderr, "\rturn %d of %d: %-20s", turn+1, o.repeat, screened.name)
		for i := range b.modes {
			k := (i + turn) % len(b.modes)
			d, err := b.delays(ctx, b.modes[k])
			if err != nil {
				return fmt.Errorf("%s %s: %w", screened.name, b.modes[k].name, err)
			}
			all[k] = append(all[k], d)
		}
	}
	fmt.Fprintln(os.Stderr)
	for i, m := range b.modes {
		reportDelays(f, m.name, all[i], all[0])
	}
	return nil
}

// reportDelays writes the medians over the turns, and of the difference to another mode.
func reportDelays(f *figures.File, name string, all, none []delays) {
	for _, metric := range []struct {
		name string
		of   func(delays) float64
	}{
		{"event_p50_us", func(d delays) float64 { return percentile(d.event, 0.5) }},
		{"event_p99_us", func(d delays) float64 { return percentile(d.event, 0.99) }},
		{"release_p50_us", func(d delays) float64 { return percentile(d.release, 0.5) }},
		{"release_p99_us", func(d delays) float64 { return percentile(d.release, 0.99) }},
		{"first_event_us", func(d delays) float64 { return d.first }},
	} {
		f.Line(screened.name, name, metric.name, median(all, func(_ int, d delays) float64 { return metric.of(d) }), "us")
		f.Line(screened.name, name, "added_"+metric.name, median(all, func(i int, d delays) float64 { return metric.of(d) - metric.of(none[i]) }), "us")
	}
}

// checkScreened checks that a mode does its work: an address in each event does not reach the client, or does.
func (b *bench) checkScreened(ctx context.Context, m *mode) error {
	const mail, events = "jane@example.com", 5
	o, err := b.send(ctx, m, http.MethodPost, "/v1/chat/completions", screened.body(), map[string]string{upstream.Events: strconv.Itoa(events), upstream.Text: mail})
	if err != nil {
		return err
	}
	want := strings.ReplaceAll(upstream.Stream(events), "word", mail)
	if m.has("guardrail") {
		want = strings.ReplaceAll(want, mail, "[EMAIL]")
	}
	if o.status != http.StatusOK || string(o.body) != want {
		return fmt.Errorf("response status %d: %s", o.status, o.body)
	}
	return nil
}

// delays measures the events of some streams.
func (b *bench) delays(ctx context.Context, m *mode) (d delays, err error) {
	var first []time.Duration
	for range streamsATurn {
		begin := time.Now()
		arrived, err := b.stream(ctx, m)
		if err != nil {
			return d, err
		}
		sent := b.replicas.Sent()
		if len(arrived) != screened.events || len(sent) != screened.events {
			return d, fmt.Errorf("%d events of %d arrived", len(arrived), len(sent))
		}
		first = append(first, arrived[0].Sub(begin))
		for i := range len(sent) - 1 { // the last one has no text
			d.event = append(d.event, micros(arrived[i].Sub(sent[i])))
			d.release = append(d.release, micros(arrived[i].Sub(sent[i+m.waits()])))
		}
	}
	slices.Sort(first)
	slices.Sort(d.event)
	slices.Sort(d.release)
	d.first = micros(first[len(first)/2])
	return d, nil
}

// stream sends the case's request, and returns when each event arrived.
func (b *bench) stream(ctx context.Context, m *mode) (arrived []time.Time, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.stack.URL()+"/v1/chat/completions", bytes.NewReader(screened.body()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("content-type", "application/json")
	req.Header.Set(upstream.Events, strconv.Itoa(screened.events))
	req.Header.Set(upstream.Timed, "1")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	for r := bufio.NewReader(res.Body); ; {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return arrived, nil
		case err != nil:
			return nil, err
		case bytes.HasPrefix(line, []byte("data: {")):
			arrived = append(arrived, time.Now())
		}
	}
}
