package relay

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/shared/endpoint"
)

// maxWorkerID is longer than any id that a proxy gives itself.
const maxWorkerID = 128

// fresh is for how long an encoding is used again: the ages in it are then off by so much.
const fresh = 5 * time.Millisecond

// ServeHTTP answers the proxies' call and its human-readable twin.
func (r *Relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path != endpoint.SnapshotPath && req.URL.Path != endpoint.SnapshotPath+".json" {
		http.NotFound(w, req)
		return
	}
	if req.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	if req.URL.Path == endpoint.SnapshotPath {
		r.serveWire(w, req)
	} else {
		r.serveJSON(w)
	}
}

// call is what a proxy asks.
type call struct {
	source, version uint64
	since           string // the two as one, "" if the proxy has nothing
	worker          string
	wait            time.Duration
}

func parseCall(req *http.Request) (c call, err error) {
	q := req.URL.Query()
	if c.since = q.Get("since"); c.since != "" {
		if c.source, c.version, err = endpoint.ParseID(c.since); err != nil {
			return call{}, fmt.Errorf("since: %w", err)
		}
	}
	if c.worker = q.Get("worker"); len(c.worker) > maxWorkerID {
		return call{}, fmt.Errorf("worker: over %d bytes", maxWorkerID)
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

	timer := time.NewTimer(min(c.wait, r.opts.MaxWait))
	defer timer.Stop()
	for {
		body, next, over := r.answer(c)
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
		r.answerNothing(w)
		return
	}
}

// answer returns the body for a call, or the channel to wait on if there is nothing new for it; over says that waiting is of no use.
func (r *Relay) answer(c call) (body []byte, next <-chan struct{}, over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.current
	if s == nil || c.since != "" && c.source == s.Source && c.version == s.Version {
		return nil, r.next, r.closed
	}
	if now := r.now(); r.aged == nil || now.Sub(r.aged.Taken) > fresh {
		r.aged, r.wires = agedTo(s, now), make(map[uint64][]byte)
	}
	base := uint64(0)
	if c.since != "" && c.source == s.Source && r.history.reaches(c.version, s.Version) {
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
	return wire, nil, false
}

// encode writes r.aged for a proxy that has the base, 0 for nothing.
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

func (r *Relay) answerNothing(w http.ResponseWriter) {
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

// The twin for people. Names and units are said in the keys; 64-bit ids are strings, as JSON readers round numbers.
type (
	twin struct {
		ID      string       `json:"id"`
		Source  string       `json:"source"`
		Version uint64       `json:"version"`
		Taken   time.Time    `json:"taken"`
		Pools   []twinPool   `json:"pools"`
		Workers []twinWorker `json:"workers"`
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
	twinWorker struct {
		ID       string  `json:"id"`
		Has      string  `json:"has"`
		Waiting  bool    `json:"waiting"`
		SilentMs float64 `json:"silentMs"`
	}
)

func (r *Relay) serveJSON(w http.ResponseWriter) {
	s := r.Snapshot()
	if s == nil {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "no snapshot yet: not every replica was tried", http.StatusServiceUnavailable)
		return
	}
	body, err := json.MarshalIndent(twinOf(agedTo(s, r.now()), r.Workers()), "", "  ")
	if err != nil { // a NaN among the gauges: relayed, not made here
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

func twinEndpointOf(e endpoint.Endpoint) twinEndpoint {
	t := twinEndpoint{Address: e.Address, Ready: e.Ready}
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
