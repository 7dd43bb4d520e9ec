package quota

import (
	"slices"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

// How many accounts are kept: in the memory of a process, and in the records that wasm workers share.
const (
	memoryAccounts = 65536
	sharedAccounts = 16384
)

// What the filter keeps beyond its configuration: no update forgets a counter.
const (
	keptTable   = "quota.accounts"
	keptShelf   = "quota.book"
	keptLearned = "quota.learned"
	keptAbsence = "quota.absence"
	keptCrowd   = "quota.crowd"
	storePrefix = "inlet.quota."
)

// start makes what the filter works with.
func (f *Filter) start(b *book, d *filter.Deps) {
	f.now = d.Now
	f.metrics = newMetrics(d.Metrics)
	if f.fixed = b; f.sourced {
		f.fixed = nil
	}
	f.table = newTable(d)
	f.crowd = d.Kept(keptCrowd, func() any { return &crowd{mu: d.Mutex()} }).(*crowd)
	f.shelf = d.Kept(keptShelf, func() any { return newShelf(d) }).(*shelf)
	if f.estimate.learn {
		f.learned = d.Kept(keptLearned, func() any { return newLearned(d.Mutex()) }).(*learned)
	}
	f.needs = f.readNeeds(b)
	f.join(d)
}

// newTable returns the accounts: in memory where the threads of a process share it, else in the store.
func newTable(d *filter.Deps) account.Table {
	return d.Kept(keptTable, func() any {
		if d.Worker != "" {
			return account.NewShared(account.Options{Accounts: sharedAccounts, Rand: d.Rand}, d.Store, storePrefix)
		}
		return account.NewMemory(account.Options{Accounts: memoryAccounts, Rand: d.Rand}, d.Mutex())
	}).(account.Table)
}

// join connects the filter to the companion, if there is one that has something to say.
func (f *Filter) join(d *filter.Deps) {
	limited := len(f.limits) > 0
	if f.fixed != nil {
		limited = limited || slices.ContainsFunc(f.fixed.products, func(p *product) bool { return len(p.limits) > 0 })
	}
	if d.Companion == nil || d.Companion.Cluster == "" || !f.sourced && (!f.shared || !limited) {
		return
	}
	f.link = &link{
		cluster: d.Companion.Cluster, shelf: f.shelf, table: f.table, now: d.Now, sourced: f.sourced, metrics: &f.metrics, log: d.Log,
		absence: d.Kept(keptAbsence, func() any { return &absence{mu: d.Mutex()} }).(*absence),
	}
	d.Companion.Converse(quotaPath, f.link.take, f.link.heard)
}

// book returns who may call, nil while nobody knows.
func (f *Filter) book() *book {
	if f.fixed != nil {
		return f.fixed
	}
	return f.shelf.current()
}

// readNeeds says what must be read for the limits. A document of the companion may bring any.
func (f *Filter) readNeeds(b *book) (n filter.Needs) {
	if f.sourced {
		n |= filter.NeedRequest | filter.NeedUsage
	}
	for _, p := range b.products {
		if len(p.models) > 0 {
			n |= filter.NeedModel
		}
		n |= needsOf(p.limits)
	}
	return n | needsOf(f.limits)
}

// Reads says that the model and the pool are those of bbr, if anything depends on them.
func (f *Filter) Reads() filter.Facts {
	byRoute := func(l *limit) bool {
		return l.measure == money || len(l.match.models)+len(l.match.pools) > 0 || slices.Contains(l.per, byModel) || slices.Contains(l.per, byPool)
	}
	depends := f.sourced || slices.ContainsFunc(f.limits, byRoute)
	if f.fixed != nil {
		depends = depends || slices.ContainsFunc(f.fixed.products, func(p *product) bool {
			return len(p.models) > 0 || slices.ContainsFunc(p.limits, byRoute)
		})
	}
	if depends {
		return filter.FactRoute
	}
	return 0
}

func needsOf(limits []*limit) (n filter.Needs) {
	for _, l := range limits {
		if l.measure.needsUsage() {
			n |= filter.NeedRequest | filter.NeedUsage
		}
		if len(l.match.models) > 0 {
			n |= filter.NeedModel
		}
		for _, d := range l.per {
			switch d {
			case byModel:
				n |= filter.NeedModel
			case byIP:
				n |= filter.NeedClient
			}
		}
	}
	return n
}
