package picker

import (
	_ "embed" // the named profiles
	"fmt"

	"github.com/inlet-proxy/inlet/filters/picker/scorer"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// profile is a way to choose: scorers with weights, and what comes before their scores.
type profile struct {
	name    string
	scorers []weighted
	needs   scorer.Needs
	// saturatedLast puts saturated replicas behind the others.
	saturatedLast bool
	// affinity puts replicas first that have the prompt cached.
	affinity bool
	// allSaturated takes over when every candidate is saturated. Nil: nothing does.
	allSaturated *profile
}

type weighted struct {
	scorer.Scorer
	weight float64
}

// customProfile is the name of a profile that the configuration spells out.
const customProfile = "custom"

// profilesYAML are the named profiles, as a configuration would spell them out.
//
//go:embed profiles.yaml
var profilesYAML []byte

// profiles are the named ones. The first is the default.
var profiles = readProfiles(profilesYAML)

func readProfiles(document []byte) (all []*profile) {
	err := conf.Decode(document, func(o *conf.Object) {
		o.Each(func(name string, v *conf.Value) {
			p := readProfile(v, all)
			p.name = name
			all = append(all, p)
		})
	})
	if err != nil {
		panic(fmt.Sprintf("profiles.yaml: %v", err)) // any test of this package finds it
	}
	return all
}

// readProfile reads the name of a profile, or one that is spelt out. It reports what is
// wrong and then returns one that is not to be used.
func readProfile(v *conf.Value, named []*profile) *profile {
	p := &profile{name: customProfile}
	v.Either(func(o *conf.Object) { p.read(o, named) }, func(v *conf.Value) {
		name := ""
		v.Enum(&name, profileNames(named)...)
		for _, known := range named {
			if known.name == name {
				p = known
			}
		}
	})
	return p
}

func (p *profile) read(o *conf.Object, named []*profile) {
	o.Required("scorers")
	if o.List("scorers", func(v *conf.Value) {
		v.Object(p.readScorer)
	}) && len(p.scorers) == 0 {
		o.Errorf("scorers", "needs at least one scorer")
	}
	saturated := "last"
	o.Enum("saturated", &saturated, "last", "ignore")
	p.saturatedLast = saturated == "last"
	if o.Bool("affinity", &p.affinity); p.affinity {
		p.needs |= scorer.NeedWork
	}
	o.Value("allSaturated", func(v *conf.Value) { p.allSaturated = readProfile(v, named) })
	if p.needs.Has(scorer.NeedWork) {
		p.needs |= scorer.NeedPrefix | scorer.NeedAdapter
	}
}

// Bounds of weights. The largest is for a scorer that decides alone as long as it can.
const (
	minWeight = 0.001
	maxWeight = 1e6
)

func (p *profile) readScorer(o *conf.Object) {
	w, name := weighted{weight: 1}, ""
	o.Required("name")
	o.Enum("name", &name, scorer.Names()...)
	hasWeight := o.Float("weight", &w.weight, minWeight, maxWeight)
	if w.Scorer = scorer.Named(name); w.Scorer == nil {
		return
	}
	if hasWeight && w.standalone() {
		o.Errorf("weight", "has no effect: %q ranks by itself", name)
	}
	for _, other := range p.scorers {
		switch {
		case other.Name() == name:
			o.Errorf("name", "%q is listed twice", name)
			return
		case other.standalone() || w.standalone():
			o.Errorf("name", "%q cannot be combined with %q: one of them ranks by itself", name, other.Name())
			return
		}
	}
	p.needs |= w.Needs()
	p.scorers = append(p.scorers, w)
}

func (w weighted) standalone() bool {
	_, is := w.Scorer.(scorer.Standalone)
	return is
}

// whenAllSaturated is the profile that takes over when every candidate is saturated.
func (p *profile) whenAllSaturated() *profile {
	for p.allSaturated != nil {
		p = p.allSaturated
	}
	return p
}

// allNeeds are the needs of the profile, and of the one that may take over.
func (p *profile) allNeeds() scorer.Needs {
	if p.allSaturated == nil {
		return p.needs
	}
	return p.needs | p.allSaturated.allNeeds()
}

// score writes the weighted sum of the scores to total, times the share of the load that
// a replica gets in slow start. The scores of one scorer are in scores meanwhile.
func (p *profile) score(in *scorer.Input, rs []scorer.Replica, total, scores []float64) {
	if p.scorers[0].standalone() {
		p.scorers[0].Score(in, rs, total)
		return
	}
	clear(total)
	for _, w := range p.scorers {
		w.Score(in, rs, scores)
		for i, v := range scores {
			total[i] += w.weight * min(1, max(0, v))
		}
	}
	for i := range rs {
		total[i] *= rs[i].WarmUp
	}
}

func profileNames(of []*profile) []string {
	names := make([]string, len(of))
	for i, p := range of {
		names[i] = p.name
	}
	return names
}
