package scrape

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// poll scrapes one replica until ctx ends.
func (s *Scraper) poll(ctx context.Context, p *poller) {
	timer := time.NewTimer(rand.N(min(s.opts.Interval, firstWithin))) // spread over the interval
	defer timer.Stop()
	defer p.own.close()
	defer p.metrics.close()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		gauges, alive := s.attempt(ctx, p)
		if gauges {
			failures = 0
		} else {
			failures++
		}
		s.lookAtModels(p, alive)
		timer.Reset(s.pauseAfter(failures, time.Since(began)))
	}
}

// pauseAfter returns how long to wait for the next attempt: the rest of the interval, doubled for each failure in a row.
func (s *Scraper) pauseAfter(failures int, took time.Duration) time.Duration {
	pause := s.opts.Interval
	for range failures {
		if pause *= 2; pause >= longestPause {
			pause = max(longestPause, s.opts.Interval)
			break
		}
	}
	pause += time.Duration((rand.Float64() - 0.5) * 0.2 * float64(pause))
	return max(pause-took, pause/10) // a replica that takes longer than the interval is not asked without a break
}

// attempt scrapes one replica once, and asks for its health if that fails. It reports whether the scrape brought gauges, and whether the
// replica answered at all.
func (s *Scraper) attempt(ctx context.Context, p *poller) (gauges, alive bool) {
	began := time.Now()
	reading, scrapeErr := s.scrape(p)
	ended := time.Now()
	alive = scrapeErr == nil
	refused := false
	if !alive && ctx.Err() == nil {
		alive, refused = s.vouched(p, scrapeErr)
	}
	if ctx.Err() != nil {
		return false, false
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	for pool := range p.pools {
		pool.stats.count(scrapeErr, ended.Sub(began))
	}
	before, wasReady, wasTried := p.reading, p.ready(), p.tried
	p.tried = true
	now := time.Now()
	switch {
	case alive:
		p.answered, p.lastGood = true, now
	case refused, now.Sub(p.lastGood) > unreadyAfter*s.opts.Interval:
		p.answered = false
	}
	switch {
	case scrapeErr == nil:
		s.judgeAge(p, began)
		if reading.LoRA.Equal(before.LoRA) {
			reading.LoRA = before.LoRA
		}
		reading.Started = steadyStart(before.Started, reading.Started, p.reason != "" || !wasReady)
		switch {
		case reading.Asleep && !before.Asleep: // its cache is emptied
			p.anew(now.Unix())
		case reading.Started != before.Started:
			p.anew(reading.Started)
		}
		p.reading, p.scraped = reading, began // the replica wrote them after that
	case errors.Is(scrapeErr, ErrMissing):
		p.reading = Reading{Started: before.Started} // it answers, and no longer says: not "as before"
	}
	s.logTurn(p, wasReady, scrapeErr)
	if p.ready() != wasReady || p.reading != before || !wasTried {
		s.notify()
	}
	return scrapeErr == nil, alive
}

// anew notes that what the replica had is gone. The time that is told is later than the one before, whatever clocks say: an earlier one is no
// sign of another process to who hears it (endpoint.Life). Callers hold s.mu.
func (p *poller) anew(at int64) {
	if p.began != 0 {
		at = max(at, p.began+endpoint.StartJitter+1)
	}
	p.began = at
}

// steadyStart returns the start of a process. Some clients compute it anew each time from a clock that is set: a second or two makes no
// other process, and what was known stays known. An earlier start is that of another process at the same port, unless the replica was away.
func steadyStart(before, now int64, away bool) int64 {
	if now == 0 || now <= before+endpoint.StartJitter && (!away || now >= before-endpoint.StartJitter) {
		return before
	}
	return now
}

// lateEvery is the least time between two warnings of judgeAge: one slow replica is told like a thousand, and the metrics count.
const lateEvery = time.Minute

// judgeAge notes whether the gauges, which were read now and the time before without a failure between, had become older than the proxies
// trust without reserve. Callers hold s.mu.
func (s *Scraper) judgeAge(p *poller, now time.Time) {
	age := now.Sub(p.scraped)
	if s.opts.Stale == 0 || p.scraped.IsZero() || p.reason != "" || age <= s.opts.Stale/2 {
		return
	}
	for pool := range p.pools {
		pool.stats.Late++
	}
	if s.toldLate.IsZero() || now.Sub(s.toldLate) >= lateEvery {
		s.toldLate = now
		s.logger(p).Warn("scrapes take so long that gauges get too old for the proxies: see whether replicas answer slowly or the CPU of this process is short, or raise stale, here and in the picker",
			"age", age.Round(time.Millisecond), "interval", s.opts.Interval, "stale", s.opts.Stale)
	}
}

// logTurn logs what is new about a replica, once.
func (s *Scraper) logTurn(p *poller, wasReady bool, scrapeErr error) {
	reason := ""
	if scrapeErr != nil {
		reason = scrapeErr.Error()
	}
	if (reason == "") != (p.reason == "") {
		if reason != "" {
			s.logger(p).Warn("scrape failed", "reason", reason)
		} else {
			s.logger(p).Info("scrape works again")
		}
	}
	p.reason = reason
	if p.ready() != wasReady {
		s.logger(p).Info("readiness changed", "ready", p.ready(), "asleep", p.reading.Asleep)
	}
}

// logger names the replica. Callers hold s.mu.
func (s *Scraper) logger(p *poller) *slog.Logger {
	var names []string
	for pool := range p.pools {
		names = append(names, pool.name)
	}
	slices.Sort(names)
	return s.log.With("pool", strings.Join(names, ","), "endpoint", p.address)
}

// lookAtModels asks for the models when it is time, and when the replica came up: it may serve others than before.
func (s *Scraper) lookAtModels(p *poller, alive bool) {
	if !alive {
		p.listTime = time.Time{}
		return
	}
	if p.plan.Models == "" || !p.listTime.IsZero() && time.Since(p.listTime) < s.opts.Models {
		return
	}
	// The next look varies by a tenth, as the scrapes do.
	p.listTime = time.Now().Add(time.Duration((rand.Float64() - 0.5) * 0.2 * float64(s.opts.Models)))
	models, err := s.models(p)
	if err != nil {
		s.log.Debug("list of models", "endpoint", p.address, "reason", err) // many servers have none: that is no fault
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if models.Equal(p.models) {
		return
	}
	for _, other := range s.pollers { // most replicas serve the same, which then takes no comparing
		if other.models.Equal(models) {
			models = other.models
			break
		}
	}
	p.models = models
	s.notify()
}

func (s *Scraper) models(p *poller) (*endpoint.Models, error) {
	text, err := s.text(p.own, p.plan.Models, &bounded{limit: maxList, err: errLongList})
	if err != nil {
		return nil, err
	}
	return readModels(text)
}

func (s *Scraper) scrape(p *poller) (Reading, error) {
	if p.mapping == nil {
		return s.detect(p)
	}
	reading, err := s.read(p)
	if p.engine == Auto && errors.Is(err, ErrMissing) {
		p.mapping = nil // another server may have come up at this address
	}
	return reading, err
}

func (s *Scraper) read(p *poller) (Reading, error) {
	scan := s.scanners.Get().(*scanner)
	defer s.scanners.Put(scan)
	scan.reset(p.mapping)
	if err := p.metrics.get(cmp.Or(p.plan.Path, p.kind.Path, defaultPath), s.deadline(), scan); err != nil {
		return Reading{}, err
	}
	return scan.reading()
}

// deadline is when a request that begins now is given up.
func (s *Scraper) deadline() time.Time { return time.Now().Add(s.opts.Timeout) }

// detection is the order in which engines are tried: one whose metrics are part of another's comes after it.
var detection = []string{"vllm", "sglang", "trtllm-serve", "triton-tensorrt-llm", "triton", "jetstream"}

// detect finds the engine that tells all that its kind tells.
func (s *Scraper) detect(p *poller) (Reading, error) {
	var failed error
	texts := map[string][]byte{} // by path
	for _, word := range detection {
		path := cmp.Or(p.plan.Path, engines[word].Path, defaultPath)
		text, asked := texts[path]
		if !asked {
			var err error
			text, err = s.text(p.metrics, path, &bounded{limit: maxExposition, err: ErrTooLarge})
			failed = cmp.Or(failed, err)
			texts[path] = text
		}
		scan := new(scanner)
		scan.reset(compiled[word])
		if _, err := scan.Write(text); err != nil {
			continue
		}
		if reading, err := scan.reading(); err == nil {
			p.kind, p.mapping = engines[word], compiled[word]
			s.log.Info("engine found", "endpoint", p.address, "engine", word)
			return reading, nil
		}
	}
	if len(texts[cmp.Or(p.plan.Path, defaultPath)]) == 0 && failed != nil {
		return Reading{}, failed
	}
	return Reading{}, foreignError{fmt.Errorf("%w: these are not the metrics of an engine that is known", ErrMissing)}
}

// text returns a whole answer, as long as the bound allows.
func (s *Scraper) text(l *link, path string, bound *bounded) ([]byte, error) {
	bound.into = new(bytes.Buffer)
	if err := l.get(path, s.deadline(), bound); err != nil {
		return nil, err
	}
	return bound.into.Bytes(), nil
}

func (p *poller) metricsAddress() string {
	if p.plan.Port == 0 {
		return p.address
	}
	host, _, err := net.SplitHostPort(p.address)
	if err != nil {
		return p.address
	}
	return net.JoinHostPort(host, strconv.Itoa(p.plan.Port))
}

// vouched asks for the health of a replica whose scrape failed. It reports whether the replica is fit for requests, and whether nobody listens at
// its port: that is no slow answer but a process that is gone, and one that is back before the next attempts may be another.
func (s *Scraper) vouched(p *poller, scrapeErr error) (fit, refused bool) {
	err := p.own.get(cmp.Or(p.plan.Health, p.kind.Health, defaultHealth), s.deadline(), &bounded{limit: maxAside, err: errAside})
	var status *statusError
	switch {
	case err == nil:
		return true, false
	case !errors.Is(scrapeErr, ErrMissing):
		return false, errors.Is(err, syscall.ECONNREFUSED)
	case errors.As(err, &status): // metrics came, if not all: that speaks for it where nothing speaks against it
		return status.saysNothing(), false
	}
	// Some of its gauges came, so there is a model server. Metrics of something else are no evidence of one that does not answer.
	return !errors.As(scrapeErr, new(foreignError)), false
}
