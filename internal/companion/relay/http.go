package relay

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// maxID is longer than any id that a proxy uses.
const maxID = 128

// fresh is how long an encoding is reused: the ages in it are off by as much.
const fresh = 5 * time.Millisecond

// maxReport is the largest body of a report. A proxy sends at most half of it.
const maxReport = 1 << 20

// reportTimeout is how long its body may take.
const reportTimeout = 5 * time.Second

// ServeHTTP serves the proxies' polls and reports, and the snapshot for people.
func (r *Relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	serve, method := r.serveWire, http.MethodGet
	switch req.URL.Path {
	case endpoint.SnapshotPath:
	case endpoint.SnapshotPath + ".json":
		serve = r.serveJSON
	case endpoint.RelayPath:
		serve, method = r.serveReport, http.MethodPost
	default:
		http.NotFound(w, req)
		return
	}
	if req.Method != method {
		w.Header().Set("Allow", method)
		http.Error(w, "method not allowed, use "+method, http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	serve(w, req)
}

// serveReport takes a report from a proxy.
func (r *Relay) serveReport(w http.ResponseWriter, req *http.Request) {
	status, err := r.takeReport(w, req)
	if err != nil {
		r.mu.Lock()
		r.board.stats.Refused++
		r.mu.Unlock()
		http.Error(w, err.Error(), status)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (r *Relay) takeReport(w http.ResponseWriter, req *http.Request) (status int, err error) {
	id := req.URL.Query().Get("proxy")
	if err := checkID("proxy", id); err != nil || id == "" {
		return http.StatusBadRequest, cmp.Or(err, errors.New("proxy: the parameter is missing"))
	}
	// A body that trickles in must not last. In tests there may be no connection.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(reportTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxReport))
	if tooLong := new(http.MaxBytesError); errors.As(err, &tooLong) {
		return http.StatusRequestEntityTooLarge, fmt.Errorf("the report exceeds %d bytes", maxReport)
	}
	if err != nil {
		return http.StatusBadRequest, err
	}
	t, err := endpoint.DecodeReport(body)
	if err != nil {
		return http.StatusBadRequest, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.opts.Now()
	p := r.board.proxy(id, now)
	if p == nil {
		return http.StatusServiceUnavailable, fmt.Errorf("more than %d proxies", maxProxies)
	}
	news, err := r.board.report(p, t, now, r.opts.ProxyLease)
	if err != nil {
		return http.StatusServiceUnavailable, err
	}
	r.board.stats.Reports++
	r.board.stats.ReportedBytes += uint64(len(body))
	if news {
		r.notifyAgain()
	}
	return 0, nil
}

func checkID(name, id string) error {
	if len(id) > maxID {
		return fmt.Errorf("%s: exceeds %d bytes", name, maxID)
	}
	return nil
}

// call is a poll of a proxy.
type call struct {
	source, version uint64
	since           string // the two as one, "" if the proxy has nothing
	worker          string
	wait            time.Duration
	proxy           string // "" if it does not take part in the relay
	heard           uint64 // the number up to which it has heard, 0 if that is not of this companion
}

func parseCall(req *http.Request) (c call, err error) {
	q := req.URL.Query()
	if c.since = q.Get("since"); c.since != "" {
		if c.source, c.version, err = endpoint.ParseID(c.since); err != nil {
			return call{}, fmt.Errorf("since: %w", err)
		}
	}
	c.worker, c.proxy = q.Get("worker"), q.Get("proxy")
	if err := cmp.Or(checkID("worker", c.worker), checkID("proxy", c.proxy)); err != nil {
		return call{}, err
	}
	if text := q.Get("heard"); text != "" {
		if c.heard, err = strconv.ParseUint(text, 10, 64); err != nil {
			return call{}, fmt.Errorf("heard: %q is not a number", text)
		}
	}
	if text := q.Get("wait"); text != "" {
		ms, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return call{}, fmt.Errorf("wait: %q is not a number of milliseconds", text)
		}
		c.wait = time.Duration(ms) * time.Millisecond
	}
	return c, nil
}

func (r *Relay) serveWire(w http.ResponseWriter, req *http.Request) {
	c, err := parseCall(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer r.arrive(c.worker, c.since)()
	defer r.seen(c.proxy)

	timer := time.NewTimer(min(c.wait, r.opts.MaxWait))
	defer timer.Stop()
	for {
		body, next, over := r.respond(c)
		if body != nil {
			w.Header().Set("Content-Type", endpoint.ContentType)
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = w.Write(body)
			return
		}
		if !over {
			select {
			case <-next:
				continue
			case <-req.Context().Done():
			case <-timer.C:
			}
		}
		r.respondUnchanged(w)
		return
	}
}

// seen notes that a proxy called.
func (r *Relay) seen(proxy string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.board.proxies[proxy]; p != nil {
		p.seen = r.opts.Now()
	}
}

// respond returns the body for a poll, or the channel to wait on if there is nothing new for it; over means that waiting is pointless.
func (r *Relay) respond(c call) (body []byte, next <-chan struct{}, over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.current
	if s == nil {
		return nil, r.next, r.closed
	}
	same := c.since != "" && c.source == s.Source // it has a snapshot of this companion
	if c.proxy == "" {
		if same && c.version == s.Version {
			return nil, r.next, r.closed
		}
		return r.wire(c, same), nil, false
	}
	p := r.board.proxy(c.proxy, r.opts.Now())
	heard := r.heard(c, p, same)
	if same && c.version == s.Version && !r.board.hasNews(p, heard) {
		return nil, r.next, r.closed
	}
	return r.board.appendNews(slices.Clone(r.wire(c, same)), c.proxy, p, heard), nil, false
}

// heard returns the number up to which a proxy has heard. If it now has the snapshot of another companion, or none that it can read, that
// is the number in the last response to it.
func (r *Relay) heard(c call, p *proxy, same bool) uint64 {
	switch {
	case same && c.heard <= r.board.last:
		return c.heard
	case p != nil:
		return p.heard
	}
	return 0
}

// wire returns the snapshot for a poll, or the changes since the proxy's version.
func (r *Relay) wire(c call, same bool) []byte {
	s := r.current
	if now := r.opts.Now(); r.aged == nil || now.Sub(r.aged.Taken) > fresh {
		r.aged, r.wires = agedTo(s, now), make(map[uint64][]byte)
	}
	base := uint64(0)
	if same && r.history.reaches(c.version, s.Version) {
		base = c.version
	}
	wire := r.wires[base]
	if wire == nil {
		wire = r.encode(base)
		r.wires[base] = wire
	}
	if base == 0 {
		r.stats.Sent++
	} else {
		r.stats.Deltas++
	}
	r.stats.SentBytes += uint64(len(wire))
	return wire
}

// encode encodes r.aged for a proxy that has the base version, 0 for none.
func (r *Relay) encode(base uint64) []byte {
	if base == 0 {
		return endpoint.Append(make([]byte, 0, 64*sizeOf(r.aged)), r.aged)
	}
	return endpoint.AppendDelta(nil, r.aged, base, r.history.since(base))
}

func sizeOf(s *endpoint.Snapshot) int {
	n := 1
	for _, p := range s.Pools {
		n += 1 + len(p.Endpoints)
	}
	return n
}

func (r *Relay) respondUnchanged(w http.ResponseWriter) {
	r.mu.Lock()
	early := r.current == nil
	if early {
		r.stats.Early++
	} else {
		r.stats.Unchanged++
	}
	r.mu.Unlock()
	if early {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "no snapshot yet: not every replica was tried", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNotModified)
}

// The snapshot for people. Keys contain the units; 64-bit ids are strings, since JSON readers round numbers.
type (
	twin struct {
		ID      string       `json:"id"`
		Source  string       `json:"source"`
		Version uint64       `json:"version"`
		Taken   time.Time    `json:"taken"`
		Pools   []twinPool   `json:"pools"`
		Workers []twinWorker `json:"workers"`
		Proxies []twinProxy  `json:"proxies,omitempty"` // that take part in the relay
	}
	twinPool struct {
		Name      string         `json:"name"`
		Ready     int            `json:"ready"`
		Endpoints []twinEndpoint `json:"endpoints"`
	}
	twinEndpoint struct {
		Address  string        `json:"address"`
		Ready    bool          `json:"ready"`
		Gauges   *twinGauges   `json:"gauges"` // null: unknown
		Models   []string      `json:"models,omitempty"`
		Adapters []twinAdapter `json:"adapters,omitempty"`
		LoRA     *twinLoRA     `json:"lora,omitempty"`
		Cache    *twinCache    `json:"cache,omitempty"`
		Priority uint16        `json:"priority,omitempty"`
		Started  *time.Time    `json:"started,omitempty"`
		InFlight *twinInFlight `json:"inFlight,omitempty"` // of all proxies
	}
	twinAdapter struct {
		Name   string `json:"name"`
		Parent string `json:"parent"`
	}
	twinLoRA struct {
		Running []string `json:"running"`
		Waiting []string `json:"waiting"`
		Max     int      `json:"max"`
	}
	twinCache struct {
		BlockTokens int32 `json:"blockTokens"`
		Blocks      int32 `json:"blocks"`
	}
	twinGauges struct {
		Waiting int     `json:"waiting"`
		Running int     `json:"running"`
		KVUse   float64 `json:"kvUse"`
		AgeMs   float64 `json:"ageMs"`
	}
	twinInFlight struct {
		Requests int64 `json:"requests"`
		Tokens   int64 `json:"tokens"`
	}
	twinProxy struct {
		ID       string       `json:"id"`
		InFlight twinInFlight `json:"inFlight"`
		SilentMs float64      `json:"silentMs"`
	}
	twinWorker struct {
		ID       string  `json:"id"`
		Has      string  `json:"has"`
		Waiting  bool    `json:"waiting"`
		SilentMs float64 `json:"silentMs"`
	}
)

func (r *Relay) serveJSON(w http.ResponseWriter, _ *http.Request) {
	s := r.Snapshot()
	if s == nil {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "no snapshot yet: not every replica was tried", http.StatusServiceUnavailable)
		return
	}
	t := twinOf(agedTo(s, r.opts.Now()), r.Workers())
	r.addReports(&t)
	body, err := json.MarshalIndent(t, "", "  ")
	if err != nil { // a NaN among the gauges, passed on from a replica
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n'))
}

func twinOf(s *endpoint.Snapshot, workers []Worker) twin {
	t := twin{
		ID: s.ID(), Source: strconv.FormatUint(s.Source, 10), Version: s.Version, Taken: s.Taken.UTC(),
		Pools: []twinPool{}, Workers: []twinWorker{},
	}
	for _, p := range s.Pools {
		tp := twinPool{Name: p.Name, Endpoints: []twinEndpoint{}}
		for _, e := range p.Endpoints {
			if e.Ready {
				tp.Ready++
			}
			tp.Endpoints = append(tp.Endpoints, twinEndpointOf(e))
		}
		t.Pools = append(t.Pools, tp)
	}
	for _, w := range workers {
		t.Workers = append(t.Workers, twinWorker{ID: w.ID, Has: w.Has, Waiting: w.Waiting, SilentMs: milliseconds(w.Silent)})
	}
	return t
}

// addReports adds what the proxies reported.
func (r *Relay) addReports(t *twin) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range t.Pools {
		for i := range p.Endpoints {
			if f := r.board.inFlight(p.Endpoints[i].Address); f != (endpoint.InFlight{}) {
				p.Endpoints[i].InFlight = (*twinInFlight)(&f)
			}
		}
	}
	for _, p := range r.board.all(r.opts.Now()) {
		t.Proxies = append(t.Proxies, twinProxy{ID: p.ID, InFlight: twinInFlight(p.InFlight), SilentMs: milliseconds(p.Silent)})
	}
}

func twinEndpointOf(e endpoint.Endpoint) twinEndpoint {
	t := twinEndpoint{Address: e.Address, Ready: e.Ready, Priority: e.Priority}
	if e.Started > 0 {
		started := time.Unix(e.Started, 0).UTC()
		t.Started = &started
	}
	if g := e.Gauges; g.Known {
		t.Gauges = &twinGauges{Waiting: g.Waiting, Running: g.Running, KVUse: g.KVUse, AgeMs: milliseconds(g.Age)}
	}
	if e.Models != nil {
		t.Models = e.Models.Names
		for _, a := range e.Models.Adapters {
			t.Adapters = append(t.Adapters, twinAdapter(a))
		}
	}
	if e.LoRA != nil {
		t.LoRA = &twinLoRA{Running: append([]string{}, e.LoRA.Running...), Waiting: append([]string{}, e.LoRA.Waiting...), Max: e.LoRA.Max}
	}
	if e.Cache != (endpoint.Cache{}) {
		t.Cache = &twinCache{BlockTokens: e.Cache.BlockTokens, Blocks: e.Cache.Blocks}
	}
	return t
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
