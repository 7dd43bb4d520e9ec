// Package feed is a proxy's end of what it and the companion tell each other.
//
// One call is open for news most of the time, a long poll: its answer brings the
// snapshot and what the other proxies told. A call that waits cannot send, so what
// this proxy has to tell goes by another, short one, at most once in a Round and
// only when there is something. See docs/architecture.md.
//
// A [Feed] is the rules of it, which are the same in a wasm VM and in a native
// module: when to call, what to make of an answer, how long to rest after a
// failure. It does nothing by itself; its [Host] calls Tick.
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
	// Period is how often Tick wants to be called.
	Period = 20 * time.Millisecond
	// Round is the least time between two tells.
	Round = 100 * time.Millisecond
	// Renewal is how often it is told again what is in flight, if that does not
	// change. The companion forgets it after three.
	Renewal = 500 * time.Millisecond

	// slack is what a long poll may take beyond the wait that it asks for.
	slack = 5 * time.Second
	// tellTimeout is how long a tell may take.
	tellTimeout = 2 * time.Second
	// Pauses after failures in a row double from the first to the last.
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
	// many notes in one answer keep the workers busy for some milliseconds: the
	// next ones are asked for at the next tick.
	many = 64 << 10
)

// Host is the proxy that a feed runs in. It calls the feed, and the feed calls it,
// from one thread.
type Host interface {
	// Turn reports whether it is this feed that calls, of all feeds of this Envoy
	// that have the same companion.
	Turn() bool
	// Current returns the newest snapshot, nil before the first. It is not used any
	// more once there is another.
	Current() *endpoint.Snapshot
	// Adopt makes a snapshot the newest, unless there is one meanwhile that it does
	// not supersede, see Supersedes.
	Adopt(s *endpoint.Snapshot) error
	// Call sends a request to the companion; done gets the answer, later and in any
	// case, unless an error is returned.
	Call(r *Request, done func(*filter.Reply)) error
}

// Request is a call to the companion.
type Request struct {
	Method, Path string
	Body         []byte // belongs to the host from now on
	Timeout      time.Duration
}

// Options say who asks whom.
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
	open  time.Time // a poll is under way, until then at the longest
	poll  int       // its number: an older one that was given up is not listened to
	whole bool      // the last answer could not be read: the next poll says that we have nothing

	tells    backoff
	telling  time.Time // a tell is under way, until then at the longest
	tell     int
	lastTell time.Time
	told     []byte // what the companion was told last, without notes
	toldTo   uint64 // which companion
	untold   bool   // it was not taken
}

// New returns the feed of a host.
func New(o Options, h Host) *Feed { return &Feed{Options: o, host: h, told: nothingInFlight} }

// Tick does what is due.
func (f *Feed) Tick() {
	if !f.host.Turn() {
		return
	}
	now := f.Deps.Now()
	if now.After(f.open) && f.polls.over(now) {
		f.ask(now)
	}
	if now.After(f.telling) && f.tells.over(now) && now.Sub(f.lastTell) >= Round {
		f.say(now)
	}
}

// Rest has the feed do nothing for a while: something is wrong with it.
func (f *Feed) Rest() {
	f.open, f.telling = time.Time{}, time.Time{}
	f.poll++
	f.tell++
	until := f.Deps.Now().Add(lastPause)
	f.polls.until, f.tells.until = until, until
}

// ask polls.
func (f *Feed) ask(now time.Time) {
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
			f.answered(r, have, now)
		}
	})
	if err != nil {
		f.failed(err)
	}
}

var errSameAgain = errors.New("it answers at once with the snapshot that it was told is here")

// answered takes the answer to a poll that said what was here. After news the next
// poll follows at once, after silence at the next tick. An answer to what is no
// longer here, since another worker was quicker, is of no use.
func (f *Feed) answered(r *filter.Reply, have *endpoint.Snapshot, asked time.Time) {
	if have != nil && have != f.host.Current() {
		f.open = time.Time{}
		return
	}
	now := f.Deps.Now()
	if r.Err == nil && r.Status == 304 {
		f.worked()
		if now.Sub(asked) < min(f.Wait/2, firstPause) {
			f.polls.until = now.Add(firstPause) // it did not wait
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
	// The poll may have been open for long, and another feed be at it now.
	if len(notes) < many && f.host.Turn() {
		f.ask(now)
	}
}

func (f *Feed) read(r *filter.Reply, have *endpoint.Snapshot, now time.Time) (*endpoint.Snapshot, error) {
	switch {
	case r.Err != nil:
		return nil, r.Err
	case r.Status != 200:
		return nil, fmt.Errorf("it answers %d", r.Status)
	}
	s, err := endpoint.Apply(have, r.Body)
	f.whole = err != nil
	if err != nil {
		return nil, fmt.Errorf("its answer cannot be read: %w", err)
	}
	if have != nil && s.ID() == have.ID() && s.Heard == have.Heard {
		return nil, errSameAgain // to ask on at once would be a tight loop
	}
	s.Received = now
	s.Attach(f.Deps.Counters, f.host.Current())
	return s, nil
}

// Supersedes reports whether a snapshot is to replace another: it is from another
// companion, or newer. A late answer never replaces a newer one.
func Supersedes(s, current *endpoint.Snapshot) bool {
	if current == nil || current.Source != s.Source {
		return true
	}
	return s.Version > current.Version || s.Version == current.Version && s.Heard > current.Heard
}

func (f *Feed) worked() {
	f.open = time.Time{}
	if f.polls.worked() {
		f.Deps.Log(filter.Info, fmt.Sprintf("companion: cluster %q answers again", f.Companion))
	}
}

// failed plans the next try; only the first failure in a row is logged.
func (f *Feed) failed(err error) {
	f.open = time.Time{}
	if f.polls.failed(f.Deps) {
		f.Deps.Log(filter.Warn, fmt.Sprintf("companion: no snapshot from cluster %q: %v; going on with what is there, and trying again",
			f.Companion, err))
	}
}

// say tells what there is to tell. It waits for the poll to work: if that fails,
// a tell would too.
func (f *Feed) say(now time.Time) {
	s := f.host.Current()
	if s == nil || f.polls.pause > 0 {
		return
	}
	tell := endpoint.Report{InFlight: inFlight(s)}
	body := endpoint.AppendReport(nil, &tell)
	// A companion that has just started knows nothing of what is in flight.
	renew := len(tell.InFlight) > 0 && (s.Source != f.toldTo || now.Sub(f.lastTell) >= Renewal)
	news := renew || f.untold || !bytes.Equal(body, f.told)
	var lost int
	if tell.Notes, lost = f.Notes.take(); lost > 0 {
		f.Deps.Log(filter.Debug, fmt.Sprintf("companion: the other proxies are not told of %d prompts: too many in one round", lost))
	}
	if !news && len(tell.Notes) == 0 {
		return
	}
	f.lastTell, f.told, f.toldTo, f.untold = now, body, s.Source, false
	if len(tell.Notes) > 0 {
		body = endpoint.AppendReport(nil, &tell)
	}
	f.send(body, now)
}

// nothingInFlight is a tell of a proxy that has nothing in flight.
var nothingInFlight = endpoint.AppendReport(nil, &endpoint.Report{})

func (f *Feed) send(body []byte, now time.Time) {
	f.telling = now.Add(2 * tellTimeout)
	f.tell++
	tell := f.tell
	done := func(r *filter.Reply) {
		if tell != f.tell {
			return
		}
		f.telling = time.Time{}
		switch {
		case r.Err != nil:
			f.notTold(r.Err)
		case r.Status != 204:
			f.notTold(fmt.Errorf("it answers %d", r.Status))
		default:
			f.tells.worked()
		}
	}
	if err := f.host.Call(&Request{Method: "POST", Path: endpoint.ReportPath(f.Proxy), Body: body, Timeout: tellTimeout}, done); err != nil {
		f.telling = time.Time{}
		f.notTold(err)
	}
}

// notTold has it told again what is in flight. The notes are lost: others can do
// without them.
func (f *Feed) notTold(err error) {
	f.untold = true
	if f.tells.failed(f.Deps) {
		f.Deps.Log(filter.Info, fmt.Sprintf("companion: cluster %q does not take what this proxy tells the others: %v; trying again", f.Companion, err))
	}
}

// inFlight is what this Envoy has in flight, by replica.
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

// backoff is when to try again after failures.
type backoff struct {
	pause time.Duration // the last one; 0: the last try did not fail
	until time.Time
}

func (b *backoff) over(now time.Time) bool { return !now.Before(b.until) }

// worked reports whether tries failed before.
func (b *backoff) worked() (again bool) {
	again = b.pause > 0
	*b = backoff{}
	return again
}

// failed reports whether it is the first failure in a row.
func (b *backoff) failed(d *filter.Deps) (first bool) {
	first = b.pause == 0
	b.pause = min(max(2*b.pause, firstPause), lastPause)
	// Half of the pause is random, so that many Envoys do not come back at once.
	half := b.pause / 2
	b.until = d.Now().Add(half + time.Duration(d.Rand()%uint64(half)))
	return first
}
