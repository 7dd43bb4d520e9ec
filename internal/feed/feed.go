// Package feed is the proxy's side of the protocol with the companion: it polls for snapshots and reports.
//
// Most of the time one call is open, a long poll: its response brings the snapshot and
// the reports of the other proxies. A waiting call cannot send, so this proxy reports
// with another, short call, at most once per Round and only if there is something to
// report. See docs/architecture.md.
//
// A [Feed] has the rules, which are the same in a wasm VM and in a native module: when
// to call, how to read a response, how long to pause after a failure. It does nothing
// by itself; its [Host] calls Tick.
package feed

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

const (
	// Period is how often Tick should be called.
	Period = 20 * time.Millisecond
	// Round is the shortest time between two reports.
	Round = 100 * time.Millisecond
	// Renewal is how often requests in flight are reported again if they do not change.
	// The companion forgets them after three of these periods.
	Renewal = 500 * time.Millisecond

	// slack is how much longer a long poll may take than the wait that it requests.
	slack = 5 * time.Second
	// reportTimeout is how long a report may take.
	reportTimeout = 2 * time.Second
	// Pauses after consecutive failures double from the first to the last.
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
	// A companion that starts without its memory waits for 1.5 s for what proxies have to say. So a conversation begins again within that time, whether
	// calls fail at once or not at all.
	talkTimeout   = 800 * time.Millisecond
	lastTalkPause = 500 * time.Millisecond
	// many notes in one response keep the workers busy for some milliseconds, so the next
	// ones are requested only at the next tick.
	many = 64 << 10
)

// Host is the proxy that runs a feed. The two call each other from one thread.
type Host interface {
	// Turn reports whether this feed should call, of all feeds of this Envoy that have the
	// same companion.
	Turn() bool
	// Current returns the newest snapshot, nil before the first. A snapshot is not used
	// any more once there is a newer one.
	Current() *endpoint.Snapshot
	// Adopt makes a snapshot the newest, unless there is now one that it does not
	// supersede, see Supersedes.
	Adopt(s *endpoint.Snapshot) error
	// Call is a Caller.
	Call(r *Request, done func(*filter.Reply)) error
}

// Caller sends a request to the companion. Unless it returns an error, done is called
// later, with the response, if the host lives until then.
type Caller func(r *Request, done func(*filter.Reply)) error

// Request is a call to the companion.
type Request struct {
	Method, Path string
	ContentType  string // of the body
	Body         []byte // not to be changed until there is a response
	Timeout      time.Duration
}

// Headers are the request's, pseudo headers first.
func (r *Request) Headers(cluster string) [][2]string {
	headers := [][2]string{{":method", r.Method}, {":path", r.Path}, {":authority", cluster}}
	if len(r.Body) > 0 {
		headers = append(headers, [2]string{"content-type", r.ContentType})
	}
	return headers
}

// Options identify the caller and the companion.
type Options struct {
	Companion string        // its cluster, for the log
	Wait      time.Duration // of a long poll
	Worker    string        // id of this feed
	Proxy     string        // id of this Envoy, for the other proxies
	Deps      *filter.Deps
	Notes     *Notes
}

// Feed follows one companion.
type Feed struct {
	Options
	host Host

	polls backoff
	open  time.Time // latest end of the open poll
	poll  int       // number of the open poll; responses to earlier ones are ignored
	whole bool      // the last response was unreadable: the next poll asks for a whole snapshot

	reports    backoff
	reporting  time.Time // latest end of the open report
	reportNo   int
	lastReport time.Time
	reported   []byte // last report without notes
	reportedTo uint64 // id of the companion that got it
	unaccepted bool   // the companion did not accept it
}

// New returns the feed of a host.
func New(o Options, h Host) *Feed { return &Feed{Options: o, host: h, reported: nothingInFlight} }

// Tick starts the calls that are due.
func (f *Feed) Tick() {
	if !f.host.Turn() {
		return
	}
	now := f.Deps.Now()
	if now.After(f.open) && f.polls.over(now) {
		f.sendPoll(now)
	}
	if now.After(f.reporting) && f.reports.over(now) && now.Sub(f.lastReport) >= Round {
		f.report(now)
	}
}

// Rest pauses the feed after a defect.
func (f *Feed) Rest() {
	f.open, f.reporting = time.Time{}, time.Time{}
	f.poll++
	f.reportNo++
	until := f.Deps.Now().Add(lastPause)
	f.polls.until, f.reports.until = until, until
}

// sendPoll sends a poll.
func (f *Feed) sendPoll(now time.Time) {
	have := f.host.Current()
	if f.whole {
		have = nil
	}
	f.open = now.Add(f.Wait + 2*slack)
	f.poll++
	poll := f.poll
	err := f.host.Call(&Request{
		Method: "GET", Path: endpoint.RelayedPath(have, f.Worker, f.Wait, f.Proxy), Timeout: f.Wait + slack,
	}, func(r *filter.Reply) {
		if poll == f.poll {
			f.polled(r, have, now)
		}
	})
	if err != nil {
		f.failed(err)
	}
}

var errSameSnapshot = errors.New("the response repeats the snapshot that this proxy already has")

// polled handles the response to a poll that started with have. After news the next
// poll follows at once, otherwise at the next tick. If another worker was quicker and
// have is no longer current, the response is useless.
func (f *Feed) polled(r *filter.Reply, have *endpoint.Snapshot, asked time.Time) {
	if have != nil && have != f.host.Current() {
		f.open = time.Time{}
		return
	}
	now := f.Deps.Now()
	if r.Err == nil && r.Status == 304 {
		f.worked()
		if now.Sub(asked) < min(f.Wait/2, firstPause) {
			f.polls.until = now.Add(firstPause) // the companion did not wait
		}
		return
	}
	s, err := f.read(r, have, now)
	if err == nil {
		err = f.host.Adopt(s)
	}
	if err != nil {
		f.failed(err)
		return
	}
	f.worked()
	notes := endpoint.Notes(r.Body)
	f.Notes.heard(notes)
	// The poll may have been open for long, and another feed may have taken over.
	if len(notes) < many && f.host.Turn() {
		f.sendPoll(now)
	}
}

func (f *Feed) read(r *filter.Reply, have *endpoint.Snapshot, now time.Time) (*endpoint.Snapshot, error) {
	switch {
	case r.Err != nil:
		return nil, r.Err
	case r.Status != 200:
		return nil, fmt.Errorf("response status %d, want 200", r.Status)
	}
	s, err := endpoint.Apply(have, r.Body)
	f.whole = err != nil
	if err != nil {
		return nil, fmt.Errorf("invalid snapshot in the response: %w", err)
	}
	if have != nil && s.ID() == have.ID() && s.Heard == have.Heard {
		return nil, errSameSnapshot // polling again at once would be a tight loop
	}
	s.Received = now
	s.Attach(f.Deps.Counters, f.host.Current())
	return s, nil
}

// Supersedes reports whether a snapshot should replace another: it comes from another
// companion, or is newer. A late response never replaces a newer one.
func Supersedes(s, current *endpoint.Snapshot) bool {
	if current == nil || current.Source != s.Source {
		return true
	}
	return s.Version > current.Version || s.Version == current.Version && s.Heard > current.Heard
}

func (f *Feed) worked() {
	f.open = time.Time{}
	if f.polls.worked() {
		f.Deps.Log(filter.Info, fmt.Sprintf("companion: polls of cluster %q succeed again", f.Companion))
	}
}

// failed schedules the next poll. It logs only the first of consecutive failures.
func (f *Feed) failed(err error) {
	f.open = time.Time{}
	if f.polls.failed(f.Deps, lastPause) {
		f.Deps.Log(filter.Warn, fmt.Sprintf("companion: poll of cluster %q failed: %v; keeping the last snapshot and retrying",
			f.Companion, err))
	}
}

// report sends what is new to the companion. It waits until polls work: if they fail, a report would
// too.
func (f *Feed) report(now time.Time) {
	s := f.host.Current()
	if s == nil || f.polls.pause > 0 {
		return
	}
	tell := endpoint.Report{InFlight: inFlight(s)}
	body := endpoint.AppendReport(nil, &tell)
	// A companion that has just started does not know what is in flight.
	renew := len(tell.InFlight) > 0 && (s.Source != f.reportedTo || now.Sub(f.lastReport) >= Renewal)
	news := renew || f.unaccepted || !bytes.Equal(body, f.reported)
	var lost int
	if tell.Notes, lost = f.Notes.take(); lost > 0 {
		f.Deps.Log(filter.Debug, fmt.Sprintf("companion: %d notes about prompts are not reported to the other proxies: too many in one round", lost))
	}
	if !news && len(tell.Notes) == 0 {
		return
	}
	f.lastReport, f.reported, f.reportedTo, f.unaccepted = now, body, s.Source, false
	if len(tell.Notes) > 0 {
		body = endpoint.AppendReport(nil, &tell)
	}
	f.send(body, now)
}

// nothingInFlight is the report of a proxy without requests in flight.
var nothingInFlight = endpoint.AppendReport(nil, &endpoint.Report{})

func (f *Feed) send(body []byte, now time.Time) {
	f.reporting = now.Add(2 * reportTimeout)
	f.reportNo++
	tell := f.reportNo
	done := func(r *filter.Reply) {
		if tell != f.reportNo {
			return
		}
		f.reporting = time.Time{}
		switch {
		case r.Err != nil:
			f.reportFailed(r.Err)
		case r.Status != 204:
			f.reportFailed(fmt.Errorf("response status %d, want 204", r.Status))
		default:
			f.reports.worked()
		}
	}
	if err := f.host.Call(&Request{
		Method: "POST", Path: endpoint.ReportPath(f.Proxy), ContentType: endpoint.ContentType, Body: body, Timeout: reportTimeout,
	}, done); err != nil {
		f.reporting = time.Time{}
		f.reportFailed(err)
	}
}

// reportFailed schedules another report of the requests in flight. The notes are lost: the
// other proxies can do without them.
func (f *Feed) reportFailed(err error) {
	f.unaccepted = true
	if f.reports.failed(f.Deps, lastPause) {
		f.Deps.Log(filter.Info, fmt.Sprintf("companion: report to cluster %q failed: %v; retrying", f.Companion, err))
	}
}

// inFlight returns this Envoy's requests in flight, by replica.
func inFlight(s *endpoint.Snapshot) (told []endpoint.Reported) {
	for i := range s.Pools {
		endpoints := s.Pools[i].Endpoints
		for j := range endpoints {
			e := &endpoints[j]
			f := endpoint.InFlight{Requests: max(0, e.Load.Requests.Value()), Tokens: max(0, e.Load.Tokens.Value())}
			if f != (endpoint.InFlight{}) && len(told) < endpoint.MaxReported {
				told = append(told, endpoint.Reported{Replica: endpoint.ReplicaID(e.Address), InFlight: f})
			}
		}
	}
	return told
}

// backoff is the time of the next attempt after failures.
type backoff struct {
	pause time.Duration // the last one; 0 if the last attempt succeeded
	until time.Time
}

func (b *backoff) over(now time.Time) bool { return !now.Before(b.until) }

// worked reports whether earlier attempts failed.
func (b *backoff) worked() (again bool) {
	again = b.pause > 0
	*b = backoff{}
	return again
}

// failed begins a pause of at most most. It reports whether it is the first of consecutive failures.
func (b *backoff) failed(d *filter.Deps, most time.Duration) (first bool) {
	first = b.pause == 0
	b.pause = min(max(2*b.pause, firstPause), most)
	// Half of the pause is random, so that many Envoys do not retry at the same time.
	half := b.pause / 2
	b.until = d.Now().Add(half + time.Duration(d.Rand()%uint64(half)))
	return first
}
