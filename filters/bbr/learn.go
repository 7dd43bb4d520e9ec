package bbr

import (
	"cmp"
	"slices"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// learner reads the replicas' lists of models: which LoRA adapters they have loaded,
// and the base model of each.
type learner struct {
	f        *Filter
	snapshot func() *endpoint.Snapshot // nil if learning is off

	lock filter.Mutex
	from *endpoint.Snapshot // the lists that the lesson was learned from
	last *lesson
}

// lesson is what the replicas' lists add to the configuration. It is immutable, and is
// rebuilt only when a list changes.
type lesson struct {
	of []listed

	models  map[string]*model  // adapters that are served, by name
	bases   map[*target]string // of configured targets that are adapters
	parents map[string]string  // of all adapters, by the replicas' names
	list    *filter.Answer     // response to GET /v1/models; nil to ask a replica
}

// listed is one list of models of a pool's replicas. Most replicas of a pool have the same list.
type listed struct {
	pool   string
	models *endpoint.Models
}

// lesson returns the current lesson; never nil.
func (l *learner) lesson() *lesson {
	if l.snapshot == nil {
		return l.last
	}
	s := l.snapshot()
	if s == nil {
		return l.f.nothing
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	if s != l.from {
		l.from = s
		if of := listsOf(s); !slices.EqualFunc(of, l.last.of, listed.equal) {
			l.last = l.f.learn(of)
		}
	}
	return l.last
}

func (l listed) equal(other listed) bool {
	return l.pool == other.pool && l.models.Equal(other.models)
}

// listsOf returns the distinct lists of each pool.
func listsOf(s *endpoint.Snapshot) (all []listed) {
	for i := range s.Pools {
		p := &s.Pools[i]
		own := len(all)
		var last *endpoint.Models
		for j := range p.Endpoints {
			m := p.Endpoints[j].Models
			if m == last || m == nil {
				continue
			}
			last = m
			if !slices.ContainsFunc(all[own:], func(l listed) bool { return l.models.Equal(m) }) {
				all = append(all, listed{p.Name, m})
			}
		}
	}
	return all
}

// learn builds a lesson from the replicas' lists.
func (f *Filter) learn(of []listed) *lesson {
	l := &lesson{of: of, models: map[string]*model{}, bases: map[*target]string{}, parents: map[string]string{}}
	for _, list := range of {
		for _, a := range list.models.Adapters {
			if _, known := l.parents[a.Name]; !known && fitsHeader(a.Parent) {
				l.parents[a.Name] = a.Parent
			}
			if fitsHeader(a.Parent) {
				l.parents[a.Parent+":"+a.Name] = a.Parent
			}
		}
	}
	cards := f.cards
	for _, m := range f.listed {
		for i := range m.targets {
			for _, name := range l.target(f, m, &m.targets[i]) {
				cards = append(slices.Clip(cards), card{name, l.models[name]})
			}
		}
	}
	if f.lists {
		l.list = listResponse(cards, l)
	}
	return l
}

// target learns what the replicas list about a target of m: its base, and the adapters
// made for it, whose names it returns. A target that gets no requests has none, and
// neither has one without a pool: nobody knows which replicas serve it.
func (l *lesson) target(f *Filter, m *model, t *target) (learned []string) {
	for _, list := range l.of {
		if t.pool.External || t.pool.Name != "" && t.pool.Name != list.pool {
			continue
		}
		for _, a := range list.models.Adapters {
			switch {
			case a.Known(t.model) && fitsHeader(a.Parent):
				l.bases[t] = f.publicBase(a.Parent, list.pool)
			case t.weight > 0 && t.pool.Name == list.pool && a.Parent == t.model && !f.isConfigured(a.Name) && l.models[a.Name] == nil && fitsHeader(a.Name):
				l.models[a.Name] = l.adapter(m, a, a.Name, a.Name)
				learned = append(learned, a.Name)
				// As SGLang spells it; one name is enough in the list of models.
				if name := cmp.Or(m.base, m.name) + ":" + a.Name; f.models[name] == nil && l.models[name] == nil {
					l.models[name] = l.adapter(m, a, name, a.Parent+":"+a.Name)
				}
			}
		}
	}
	return learned
}

// adapter returns the model for an adapter of m, with the name that clients use and
// the name that replicas use. It is served by those of m's pools that list it.
func (l *lesson) adapter(m *model, a endpoint.Adapter, name, target string) *model {
	learned := &model{name: name, base: cmp.Or(m.base, m.name), sticky: m.sticky}
	for _, t := range m.targets {
		if t.model == a.Parent && t.weight > 0 && l.has(t.pool, a.Name) {
			learned.weights += uint64(t.weight)
			learned.targets = append(learned.targets, newTarget(name, target, t.pool, t.weight))
		}
	}
	for _, p := range m.fallback {
		if l.has(p, a.Name) {
			learned.fallback = append(learned.fallback, p)
		}
	}
	return learned
}

// has reports whether a replica of the pool lists an adapter.
func (l *lesson) has(p filter.Pool, name string) bool {
	return !p.External && slices.ContainsFunc(l.of, func(list listed) bool {
		return p.Name == list.pool &&
			slices.ContainsFunc(list.models.Adapters, func(a endpoint.Adapter) bool { return a.Name == name })
	})
}

// isConfigured reports whether the configuration defines a name, or a public name for it.
func (f *Filter) isConfigured(name string) bool {
	return f.models[name] != nil || slices.ContainsFunc(f.listed, func(m *model) bool {
		return slices.ContainsFunc(m.targets, func(t target) bool { return t.model == name })
	})
}

// publicBase returns the clients' name for a base model of a pool; the replicas' own
// name if there is none.
func (f *Filter) publicBase(name, pool string) string {
	for _, m := range f.listed {
		for _, t := range m.targets {
			if t.model == name && (t.pool.Name == "" || t.pool.Name == pool) {
				return cmp.Or(m.base, m.name)
			}
		}
	}
	return name
}

// baseOf returns the base of the model that a target serves, "" if it is unknown or
// the target is not an adapter.
func (l *lesson) baseOf(m *model, t *target) string { return cmp.Or(m.base, l.bases[t]) }

// baseOfAny returns the base of the first target that has one.
func (l *lesson) baseOfAny(m *model) string {
	for i := range m.targets {
		if base := l.baseOf(m, &m.targets[i]); base != "" {
			return base
		}
	}
	return m.base
}
