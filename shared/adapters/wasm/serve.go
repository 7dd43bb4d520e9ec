package wasm

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"strconv"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/internal/version"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv"
)

const (
	// tickPeriod is how soon workers see each other's counters and a new snapshot.
	tickPeriod = feed.Period
	// workerLease is how long a worker may be silent before its counts expire.
	workerLease = 3 * tickPeriod
	// maxFree bounds the kits that are kept for reuse: each keeps its buffers.
	maxFree = 64
	// maxPiece bounds the memory that is kept for a piece of a body. Envoy reads 16 KiB at a time.
	maxPiece = 64 << 10
	// maxHeaders bounds the memory that is kept for a header map.
	maxHeaders = 16 << 10
	// gcPercent is how much garbage may gather; see Serve.
	gcPercent = 25
)

// Serve makes the module a plugin whose configuration may name the known
// filters. Call it in an init function of package main; main stays empty.
func Serve(known ...filter.Factory) {
	// The heap is mostly the picker's index, which costs the collector nothing: to
	// let as much again fill up with garbage would only double the memory of each
	// worker.
	debug.SetGCPercent(gcPercent)
	proxywasm.SetVMContext(&vm{known: known})
}

type vm struct {
	types.DefaultVMContext
	known  []filter.Factory
	warned bool // of requests that ended while their body was waited for
	kept   map[string]any
	passed uint64 // document of the chain that let a request go on last
}

// keep implements filter.Deps.Keep. What is kept outlives the plugin's
// configuration, as far as Envoy uses the VM again.
func (v *vm) keep(name string, create func() any) any {
	kept, ok := v.kept[name]
	if !ok {
		if v.kept == nil {
			v.kept = map[string]any{}
		}
		kept = create()
		v.kept[name] = kept
	}
	return kept
}

// NewPluginContext is called once for each configuration of the plugin.
func (v *vm) NewPluginContext(uint32) types.PluginContext { return &plugin{vm: v} }

// plugin is one configuration in one VM.
type plugin struct {
	types.DefaultPluginContext
	vm       *vm
	chain    *chain.Chain
	ledger   *kv.Ledger
	follower *follower   // nil without a companion
	notes    *feed.Notes // for the other proxies
	free     []*kit      // to be used again
	piece    []byte      // what the host hands over, until it does so again
	splice   []byte      // scratch of replaceBody
	ended    endedStreams
	clock    clock
}

// OnPluginStart makes the chain. With a mistake in the configuration it fails,
// and Envoy refuses the update or does not start.
func (p *plugin) OnPluginStart(size int) types.OnPluginStartStatus {
	doc, err := configuration(size)
	if err != nil {
		proxywasm.LogCritical("the plugin's configuration cannot be read: " + err.Error())
		return types.OnPluginStartStatusFailed
	}
	worker := newWorkerID()
	p.clock.set()
	p.ledger = kv.NewLedger(sharedData{}, worker, p.clock.now, workerLease)
	deps := p.deps(worker)
	p.notes = feed.NewNotes(deps.Mutex())
	p.chain, err = p.load(doc, deps)
	if err != nil {
		logMistakes(err)
		return types.OnPluginStartStatusFailed
	}
	if c := p.chain.Companion(); c.Cluster != "" {
		p.follower = newFollower(c, worker, p.notes, p.chain.Deps(), p.chain.Conversations(), callCluster(c.Cluster))
		p.follower.load()
	}
	p.exchangeCounters() // a VM that replaces a dead one judges well from its first request on
	if err := proxywasm.SetTickPeriodMilliSeconds(uint32(tickPeriod.Milliseconds())); err != nil {
		proxywasm.LogCritical("no timer: " + err.Error())
		return types.OnPluginStartStatusFailed
	}
	announce(p.chain, doc)
	return types.OnPluginStartStatusOK
}

// load makes the chain while requests of this worker wait. Collecting meanwhile would go over the tree of the document
// time and again, which takes longer than reading it. One collection afterwards gives back what that left behind, so that the
// next document finds its memory there: a VM's memory never shrinks.
func (p *plugin) load(doc []byte, deps *filter.Deps) (*chain.Chain, error) {
	debug.SetGCPercent(-1)
	c, err := chain.New(doc, p.vm.known, deps)
	debug.SetGCPercent(gcPercent)
	runtime.GC()
	return c, err
}

func (p *plugin) deps(worker string) *filter.Deps {
	return &filter.Deps{
		Now:       p.clock.now,
		Rand:      rand.Uint64, // ChaCha8, which the runtime seeds from the host's randomness
		Store:     sharedData{},
		Counters:  p.ledger,
		Snapshot:  p.snapshot,
		Metrics:   metrics{},
		Keep:      p.vm.keep,
		Worker:    worker,
		Peers:     peers{p},
		Companion: &filter.Link{Proxy: proxyID(sharedData{}, worker)},
		Log:       log,
	}
}

func (p *plugin) snapshot() *endpoint.Snapshot {
	if p.follower == nil {
		return nil
	}
	return p.follower.current
}

// OnTick exchanges what changed with the other workers.
func (p *plugin) OnTick() {
	p.clock.set()
	p.exchangeCounters()
	if p.follower != nil {
		p.follower.tick()
	}
	p.chain.Tick()
	p.ended.cut(p.clock.now())
}

// exchangeCounters lets an error pass: it means that others kept writing or that
// an entry is unreadable, and the ledger catches up at a later tick.
func (p *plugin) exchangeCounters() {
	if err := p.ledger.Tick(); err != nil && !errors.Is(err, kv.ErrBusy) {
		proxywasm.LogDebug("counters: " + err.Error())
	}
}

// OnPluginDone leaves the other workers in good order.
func (p *plugin) OnPluginDone() bool {
	if p.chain == nil {
		return true
	}
	if err := p.ledger.Close(); err != nil {
		proxywasm.LogDebug("counters: " + err.Error()) // they expire
	}
	if p.follower != nil {
		p.follower.close()
	}
	return true
}

// NewHttpContext is called for each exchange.
func (p *plugin) NewHttpContext(id uint32) types.HttpContext { return &exchange{plugin: p, id: id} }

func (p *plugin) newKit() *kit {
	n := len(p.free)
	if n == 0 {
		return &kit{stream: p.chain.NewStream(), request: headers{of: &requestMap}, response: headers{of: &responseMap}}
	}
	k := p.free[n-1]
	p.free[n-1], p.free = nil, p.free[:n-1]
	return k
}

// keep takes a kit back, but no memory that only a large body needs.
func (p *plugin) keep(k *kit) {
	k.request.clear()
	k.response.clear()
	if k.first = k.first[:0]; cap(k.first) > maxPiece {
		k.first = nil
	}
	if cap(p.piece) > maxPiece {
		p.piece = nil
	}
	if cap(p.splice) > maxPiece {
		p.splice = nil
	}
	if len(p.free) < maxFree {
		p.free = append(p.free, k)
	}
}

// configuration returns the plugin's document. Nothing at all is a document
// too, about which chain.New has something to say.
func configuration(size int) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	return proxywasm.GetPluginConfiguration()
}

func logMistakes(err error) {
	var all conf.Errors
	if !errors.As(err, &all) {
		proxywasm.LogCritical("configuration: " + err.Error())
		return
	}
	for _, e := range all {
		proxywasm.LogCritical("configuration: " + e.Error())
	}
}

// announce logs version and chain once per Envoy and document, not once per VM, and shows the version as a metric.
func announce(c *chain.Chain, doc []byte) {
	h := fnv.New64a()
	h.Write(doc)
	key := "inlet.announced/" + strconv.FormatUint(h.Sum64(), 16)
	v := version.String()
	if (sharedData{}).Set(key, []byte{1}, kv.Create) == nil {
		proxywasm.LogInfo("version " + v + ", chain: " + c.String())
	}
	if (sharedData{}).Set("inlet.version/"+v, []byte{1}, kv.Create) == nil {
		metrics{}.Gauge("inlet_build_info", "version").Record(1, filter.Values{v})
	}
}

// newWorkerID is random, since the host tells a VM nothing that sets it apart.
func newWorkerID() string { return fmt.Sprintf("%016x", rand.Uint64()) }

func log(level filter.Level, message string) {
	switch level {
	case filter.Debug:
		proxywasm.LogDebug(message)
	case filter.Info:
		proxywasm.LogInfo(message)
	case filter.Warn:
		proxywasm.LogWarn(message)
	case filter.Error:
		proxywasm.LogError(message)
	default:
		proxywasm.LogCritical(message)
	}
}
