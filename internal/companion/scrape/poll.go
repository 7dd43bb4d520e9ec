package scrape

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/inlet-proxy/inlet/internal/companion/http1"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// poller scrapes one replica, and has its state.
type poller struct {
	key
	stop context.CancelFunc

	// These belong to its goroutine.
	own      *http1.Client // to the replica's address ...
	metrics  *http1.Client // ... and to that of its metrics, usually the same client
	kind     Engine
	mapping  *mapping  // nil: not detected yet
	listTime time.Time // when the models were requested

	// These are guarded by Scraper.mu.
	pools    map[*pool]bool // that list it
	tried    bool           // the first attempt is over
	answered bool           // recently
	lastGood time.Time      // of scrape or health check
	reading  Reading
	began    int64 // endpoint.Endpoint.Started
	models   *endpoint.Models
	scraped  time.Time // when the gauges were read
	reason   string    // why the last scrape failed, "" if it did not
}

// ready reports whether the replica takes requests, judging by its responses. One that sleeps responds, but lets requests wait.
func (p *poller) ready() bool { return p.answered && !p.reading.Asleep }

// poll scrapes one replica until ctx ends.
func (s *Scraper) poll(ctx context.Context, p *poller) {
	timer := time.NewTimer(rand.N(min(s.opts.Interval, firstWithin))) // spread over the interval
	defer timer.Stop()
	defer p.own.Close()
	defer p.metrics.Close()
	defer s.markTried(ctx, p) // if it panics
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
		s.updateModels(p, alive)
		timer.Reset(s.pauseAfter(failures, time.Since(began)))
	}
}

// markTried notes that a replica was tried, unless it is no longer listed: the others must not wait for it.
func (s *Scraper) markTried(ctx context.Context, p *poller) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.tried && ctx.Err() == nil {
		p.tried = true
		s.notify()
	}
}

// pauseAfter returns how long to wait for the next attempt: the rest of the interval, doubled for each consecutive failure.
func (s *Scraper) pauseAfter(failures int, took time.Duration) time.Duration {
	pause := s.opts.Interval
	for range failures {
		if pause *= 2; pause >= longestPause {
			pause = max(longestPause, s.opts.Interval)
			break
		}
	}
	pause += time.Duration((rand.Float64() - 0.5) * 0.2 * float64(pause))
	return max(pause-took, pause/10) // a replica that takes longer than the interval still gets a pause
}

// attempt scrapes one replica once, and checks its health if that fails. It reports whether the scrape returned gauges, and whether the
// replica is alive.
func (s *Scraper) attempt(ctx context.Context, p *poller) (gauges, alive bool) {
	began := time.Now()
	reading, scrapeErr := s.scrape(p)
	ended := time.Now()
	alive = scrapeErr == nil
	refused := false
	if !alive && ctx.Err() == nil {
		alive, refused = s.checkHealth(p, scrapeErr)
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
		case reading.Asleep && !before.Asleep: // which empties its cache
			p.restarted(now.Unix())
		case reading.Started != before.Started:
			p.restarted(reading.Started)
		}
		p.reading, p.scraped = reading, began // the replica wrote them after that
	case errors.Is(scrapeErr, ErrMissing):
		p.reading = Reading{Started: before.Started} // it responds without them: the old values no longer hold
	}
	s.logChanges(p, wasReady, scrapeErr)
	if p.ready() != wasReady || p.reading != before || !wasTried {
		s.notify()
	}
	return scrapeErr == nil, alive
}

// restarted notes that the replica's cache is gone. The reported time is later than the one before whatever the clocks say, because the
// proxies do not take an earlier one for another process (endpoint.Life). Callers hold s.mu.
func (p *poller) restarted(at int64) {
	if p.began != 0 {
		at = max(at, p.began+endpoint.StartJitter+1)
	}
	p.began = at
}

// steadyStart returns the start of a process. Some metrics libraries compute it each time from a clock that may be adjusted, so a change of
// a second or two does not mean another process. An earlier start is that of another process on the same port, unless the replica was away.
func steadyStart(before, now int64, away bool) int64 {
	if now == 0 || now <= before+endpoint.StartJitter && (!away || now >= before-endpoint.StartJitter) {
		return before
	}
	return now
}

// lateEvery is the least time between two warnings of judgeAge: one for all replicas, since the metrics count them.
const lateEvery = time.Minute

// judgeAge checks whether the gauges, which were read now and before without a failure in between, had become older than the proxies fully
// trust. Callers hold s.mu.
func (s *Scraper) judgeAge(p *poller, now time.Time) {
	age := now.Sub(p.scraped)
	if s.opts.Stale == 0 || p.scraped.IsZero() || p.reason != "" || age <= s.opts.Stale/2 {
		return
	}
	for pool := range p.pools {
		pool.stats.Late++
	}
	if s.loggedLate.IsZero() || now.Sub(s.loggedLate) >= lateEvery {
		s.loggedLate = now
		s.logger(p).Warn("scrapes are so slow that the proxies distrust the gauges: check for slow replicas or for CPU starvation of this process, or raise stale here and in the picker",
			"age", age.Round(time.Millisecond), "interval", s.opts.Interval, "stale", s.opts.Stale)
	}
}

// logChanges logs what changed about a replica, once.
func (s *Scraper) logChanges(p *poller, wasReady bool, scrapeErr error) {
	reason := ""
	if scrapeErr != nil {
		reason = scrapeErr.Error()
	}
	if (reason == "") != (p.reason == "") {
		if reason != "" {
			s.logger(p).Warn("scrape failed", "reason", reason)
		} else {
			s.logger(p).Info("scrape succeeded again")
		}
	}
	p.reason = reason
	if p.ready() != wasReady {
		s.logger(p).Info("readiness changed", "ready", p.ready(), "asleep", p.reading.Asleep)
	}
}

// logger returns a logger that names the replica. Callers hold s.mu.
func (s *Scraper) logger(p *poller) *slog.Logger {
	var names []string
	for pool := range p.pools {
		names = append(names, pool.name)
	}
	slices.Sort(names)
	return s.log.With("pool", strings.Join(names, ","), "endpoint", p.address)
}

// updateModels requests the list of models when it is due, and when the replica comes up, since it may then serve others.
func (s *Scraper) updateModels(p *poller, alive bool) {
	if !alive {
		p.listTime = time.Time{}
		return
	}
	if p.plan.Models == "" || !p.listTime.IsZero() && time.Since(p.listTime) < s.opts.Models {
		return
	}
	// The time of the next request varies by a tenth, as that of the scrapes does.
	p.listTime = time.Now().Add(time.Duration((rand.Float64() - 0.5) * 0.2 * float64(s.opts.Models)))
	models, err := s.models(p)
	if err != nil {
		s.log.Debug("no list of models", "endpoint", p.address, "reason", err) // many servers have none: that is not a fault
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if models.Equal(p.models) {
		return
	}
	for _, other := range s.pollers { // most replicas serve the same models; sharing one list makes them cheap to compare
		if other.models.Equal(models) {
			models = other.models
			break
		}
	}
	p.models = models
	s.notify()
}

func (s *Scraper) models(p *poller) (*endpoint.Models, error) {
	text, err := s.text(p.own, p.plan.Models, maxList, errLongList)
	if err != nil {
		return nil, err
	}
	return readModels(text)
}

// read reads the gauges of a replica whose engine is known.
func (s *Scraper) read(p *poller) (Reading, error) {
	scan := s.scanners.Get().(*scanner)
	defer s.scanners.Put(scan)
	scan.reset(p.mapping)
	if err := p.metrics.Get(cmp.Or(p.plan.Path, p.kind.Path, defaultPath), s.deadline(), scan); err != nil {
		return Reading{}, err
	}
	return scan.reading()
}

// deadline returns that of a request that begins now.
func (s *Scraper) deadline() time.Time { return time.Now().Add(s.opts.Timeout) }

// text returns the whole body of a response. One over the limit is the given error.
func (s *Scraper) text(c *http1.Client, path string, limit int, over error) ([]byte, error) {
	body := bounded{limit: limit, over: over}
	if err := c.Get(path, s.deadline(), &body); err != nil {
		return nil, err
	}
	return body.text.Bytes(), nil
}

// bounded keeps what is written to it, up to a limit.
type bounded struct {
	text  bytes.Buffer
	limit int
	over  error // of a write beyond it
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.text.Len()+len(p) > b.limit {
		return 0, b.over
	}
	return b.text.Write(p)
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

// checkHealth checks the health of a replica whose scrape failed. It reports whether the replica can take requests, and whether its port
// refused the connection: then the process is gone, not merely slow, and one that is there at the next attempt may be another.
func (s *Scraper) checkHealth(p *poller, scrapeErr error) (fit, refused bool) {
	err := p.own.Get(cmp.Or(p.plan.Health, p.kind.Health, defaultHealth), s.deadline(), nil)
	var status *http1.StatusError
	switch {
	case err == nil:
		return true, false
	case !errors.Is(scrapeErr, ErrMissing):
		return false, errors.Is(err, syscall.ECONNREFUSED)
	case errors.As(err, &status): // there are metrics, if not all of them: they count unless something contradicts them
		return noVerdict(status.Status), false
	}
	// Some of its gauges are there, so it is a model server. Metrics of something else are no evidence of a server that does not respond.
	return !errors.As(scrapeErr, new(foreignError)), false
}

// noVerdict reports whether a status of a health check is about the request and not about the server: there is no such path, or it is not
// for us.
func noVerdict(status int) bool {
	switch status {
	case 401, 403, 404, 405, 501:
		return true
	}
	return false
}
