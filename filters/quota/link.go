package quota

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/account"
	"github.com/inlet-proxy/inlet/shared/state/kv"
)

const (
	quotaPath = "/v1/quota"
	// maxAsked bounds how often one request asks the companion. What it grants is for those that asked, so that one round suffices, or two if another
	// limit has run dry in the meantime. A request that gives up is refused although something is left.
	maxAsked = 4
	// askTimeout is more than one round takes, and less than a client notices. maxWait is for all rounds together.
	askTimeout = 250 * time.Millisecond
	maxWait    = 500 * time.Millisecond
	// maxReported is how many accounts one report has.
	maxReported = 512
	// askForChanges is how long a change of keys and products takes to get to a proxy without requests.
	askForChanges = time.Second
)

// link is the filter's way to the companion.
type link struct {
	cluster string
	shelf   *shelf
	table   account.Table
	now     func() time.Time
	metrics *metrics
	log     func(filter.Level, string)

	sourced bool // keys, applications and products come from the companion
	report  []byte
	asked   time.Time // when something was said last
	absence *absence
}

// version is that of the document that this proxy has, negative if it wants none.
func (l *link) version() int64 {
	if !l.sourced {
		return -1
	}
	return l.shelf.version()
}

// absence says whether the companion responds, but shares no quotas; the threads share it.
type absence struct {
	mu     filter.Mutex
	absent bool
}

// set reports whether that is new.
func (a *absence) set(absent bool) (changed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	changed = a.absent != absent
	a.absent = absent
	return changed
}

// cause is why nobody says what is left.
func (a *absence) cause() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.absent {
		return noQuota
	}
	return unreachable
}

// take returns what is to be said in the background, nil if nothing is. Without anything to say it still asks for changes
// of the document.
func (l *link) take() []byte {
	now := l.now()
	said := l.table.Report(now, l.version(), l.report[:0], maxReported)
	if said == nil && l.sourced && (l.shelf.current() == nil || now.Sub(l.asked) >= askForChanges || now.Before(l.asked)) {
		said = l.table.Ask(now, l.version(), l.report[:0], nil)
	}
	if said != nil {
		l.report, l.asked = said, now
	}
	return said
}

// heard takes in the response.
func (l *link) heard(r *filter.Reply) { _ = l.apply(r) }

// apply takes in a response of the companion.
func (l *link) apply(r *filter.Reply) error {
	err := r.Err
	if err == nil && r.Status != 200 {
		err = errors.New("status " + strconv.Itoa(r.Status))
	}
	if err == nil {
		err = l.table.Heard(l.now(), r.Body)
	}
	if err != nil {
		l.table.Silence(l.now())
		l.miss(r)
		return err
	}
	l.absence.set(false)
	if l.sourced {
		l.shelf.take(r.Body, l.log)
	}
	return nil
}

// miss counts that there was no good response. One that says that there are no quotas is a mistake in a configuration, and will not go away.
func (l *link) miss(r *filter.Reply) {
	absent := r.Err == nil && r.Status == 404
	if l.absence.set(absent) && absent {
		said, _, _ := strings.Cut(string(r.Body[:min(len(r.Body), 200)]), "\n")
		l.log(filter.Warn, fmt.Sprintf("quota: cluster %q shares no quotas, it responds with 404: %q; add \"quota\" to the companion's configuration, or set \"scope: local\"", l.cluster, said))
	}
	l.metrics.failed(l.absence.cause())
}

// ask waits for the companion.
func (f *Filter) ask(r *request) filter.Verdict {
	r.state = asking
	return f.call(r, r.demands)
}

// mayAsk reports whether the request may wait for the companion once more.
func (f *Filter) mayAsk(r *request) bool {
	return f.link != nil && (r.asked == 0 || r.asked < maxAsked && f.now().Before(r.until))
}

// call has the companion asked for demands that are dry.
func (f *Filter) call(r *request, dry []account.Demand) filter.Verdict {
	now := f.now()
	if r.asked == 0 {
		r.until = now.Add(maxWait)
	}
	r.asked++
	r.body = f.table.Ask(now, f.link.version(), r.body[:0], dry)
	return filter.Wait(filter.Call{
		Cluster: f.link.cluster, Path: quotaPath, Headers: [][2]string{{"content-type", "application/json"}},
		Body: r.body, Timeout: min(askTimeout, r.until.Sub(now)),
	})
}

// OnReply takes what the companion has granted.
func (f *Filter) OnReply(x *filter.Exchange, reply *filter.Reply) filter.Verdict {
	r := x.State().(*request)
	result := "granted"
	if err := f.link.apply(reply); err != nil {
		result = "failed"
	}
	var v filter.Verdict
	if x.Unit() != nil {
		v = f.grow(x, r)
	} else {
		v = f.take(x, r)
	}
	if v.Refusal() != nil && result == "granted" {
		result = "refused"
	}
	f.metrics.dry.Record(1, filter.Values{result})
	return v
}

// shelf holds the book that came from the companion last. It outlives configurations, and workers that start
// later find it in the store.
type shelf struct {
	mu     filter.Mutex
	store  kv.Store
	book   *book
	number int64 // the version of the document
	bad    int64 // the version of one that could not be used
}

const shelfKey = "inlet.quota.document.1"

// newShelf begins with what another worker has kept.
func newShelf(d *filter.Deps) *shelf {
	s := &shelf{mu: d.Mutex(), store: d.Store}
	if d.Store == nil {
		return s
	}
	if value, _, err := d.Store.Get(shelfKey); err == nil {
		s.take(append([]byte(nil), value...), d.Log)
	}
	return s
}

// current returns the book, nil before the first one came.
func (s *shelf) current() *book {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.book
}

func (s *shelf) version() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.number
}

// take takes the document that a response brings, if it brings one. One that cannot be used leaves what was there.
func (s *shelf) take(response []byte, log func(filter.Level, string)) {
	reply, err := account.ParseReply(response)
	version := reply.Document
	if err != nil || len(reply.Keys) == 0 || !s.isNew(version) {
		return
	}
	b, err := readDocument(reply.Keys)
	s.put(b, version, err == nil)
	if err != nil {
		log(filter.Error, "quota: the companion's keys and products cannot be used: "+err.Error())
		return
	}
	if s.store == nil {
		return
	}
	kept := account.Reply{Now: 1, Document: version, Keys: reply.Keys}
	_ = s.store.Set(shelfKey, kept.Append(nil), 0) // else the next worker waits for the companion
}

func (s *shelf) isNew(version int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return version != s.number && version != s.bad
}

// put keeps a book, or notes that it cannot be used.
func (s *shelf) put(b *book, version int64, good bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !good {
		s.bad = version
		return
	}
	s.book, s.number = b, version
}

// CheckText reports what a proxy could not use of keys, applications, developers and products, by its place in a text that a person wrote.
func CheckText(text []byte) error {
	_, err := readDocument(text)
	return err
}

// CheckDocument reports what a proxy could not use of a document as it is sent: in JSON, with a reply. The companion sends none with mistakes.
func CheckDocument(doc []byte) error {
	if err := CheckText(doc); err != nil {
		return err
	}
	r := account.Reply{Now: 1, Document: 1, Keys: doc}
	read, err := account.ParseReply(r.Append(nil))
	if err == nil && !bytes.Equal(read.Keys, doc) {
		err = errors.New("the document cannot be read from a reply")
	}
	return err
}

// readDocument reads keys, applications, developers and products in the words of the configuration.
func readDocument(doc []byte) (*book, error) {
	r := newBookReader()
	err := conf.Decode(doc, func(o *conf.Object) {
		r.read(o)
		o.List("keys", func(v *conf.Value) { v.Object(r.addKey) })
	})
	return r.b, err
}
