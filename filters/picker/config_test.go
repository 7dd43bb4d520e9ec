package picker

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/filters/picker/scorer"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// The old names of keys say the same as the new ones, and a warning names both.
func TestOldNamesOfKeys(t *testing.T) {
	const before = "{room: {queue: 2, kv: 0.5, inFlight: 7}, prefix: {saturation: 99}, health: {silence: 4s}}"
	const now = "{saturation: {queue: 2, kv: 0.5, inFlight: 7}, prefix: {maxTokens: 99}, health: {firstByte: 4s}}"
	read := func(doc string) (*Filter, []string) {
		r := newRig(t, "{}")
		var f filter.Filter
		var warnings []string
		require.NoError(t, conf.DecodeWarn([]byte(doc), func(w conf.Error) { warnings = append(warnings, w.Error()) },
			func(o *conf.Object) { f = newFilter(o, r.deps) }))
		return f.(*Filter), warnings
	}
	old, warnings := read(before)
	want, none := read(now)
	require.Empty(t, none)
	require.Equal(t, want.settings, old.settings)
	require.NotEqual(t, defaultSettings(old.deps), old.settings)
	require.Len(t, warnings, 3)
	for i, name := range []string{`"saturation" is now called "maxTokens"`, `"room" is now called "saturation"`, `"silence" is now called "firstByte"`} {
		require.Contains(t, warnings[i], name)
	}
}

// Spelling a named profile out, as the README shows it, is the same as naming it.
func TestNamedProfilesAreConfigurations(t *testing.T) {
	require.Equal(t, []string{"sticky", "weighted", "least-request", "round-robin", "session"}, profileNames(profiles))
	spelt := map[string]*profile{}
	require.NoError(t, conf.Decode(profilesYAML, func(o *conf.Object) {
		o.Each(func(name string, v *conf.Value) { spelt[name] = readProfile(v, profiles) })
	}))
	for _, p := range profiles {
		custom := *spelt[p.name]
		require.Equal(t, customProfile, custom.name)
		custom.name = p.name
		require.Equal(t, *p, custom)
		require.Equal(t, p, newRig(t, "profile: "+p.name).f.profile)
	}
}

// The README shows the named profiles as they are.
func TestReadmeShowsTheProfiles(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	require.True(t, strings.Contains(string(readme), "\n```yml\n"+string(profilesYAML)+"```\n"), "the profiles in the README are not those of profiles.yaml")
}

// Every scorer of the registry can be configured, alone and with others.
func TestScorersCanBeConfigured(t *testing.T) {
	for _, s := range scorer.All {
		r := newRig(t, "profile: {scorers: [{name: "+s.Name()+"}]}")
		require.Equal(t, s.Needs(), r.f.needs)
		if _, standalone := s.(scorer.Standalone); !standalone {
			r = newRig(t, "profile: {scorers: [{name: "+s.Name()+", weight: 2.5}], affinity: true, allSaturated: round-robin}")
			require.Equal(t, []weighted{{s, 2.5}}, r.f.profile.scorers)
			require.Equal(t, s.Needs()|scorer.NeedWork|scorer.NeedPrefix|scorer.NeedAdapter|scorer.NeedTurn, r.f.needs)
		}
		r.serve(ready(4)...)
		for seed := range uint64(8) {
			x := request(seed, 3)
			r.serveOne(t, x, 200)
			require.Contains(t, string(x.Why()), "picker=custom candidates=4 ")
		}
	}
}

// What the chain reads of a request follows from what the scorers need.
func TestNeedsFollowFromTheScorers(t *testing.T) {
	const partitions = "cache_salt extra_key lora_path"
	for doc, want := range map[string]struct {
		needs  filter.Needs
		fields string
	}{
		"{}":                     {filter.NeedSubset | filter.NeedPrefix, partitions},
		"profile: weighted":      {filter.NeedSubset | filter.NeedPrefix, partitions},
		"profile: least-request": {filter.NeedSubset, ""},
		"profile: round-robin":   {filter.NeedSubset, ""},
		"profile: session":       {filter.NeedSubset, ""},
		"profile: {scorers: [{name: queue}, {name: lora}]}":                            {filter.NeedSubset | filter.NeedModel, "lora_path"},
		"profile: {scorers: [{name: queue}, {name: prefix}]}":                          {filter.NeedSubset | filter.NeedPrefix, partitions},
		"profile: {scorers: [{name: queue}], affinity: true}":                          {filter.NeedSubset | filter.NeedPrefix, partitions},
		"profile: {scorers: [{name: queue}], allSaturated: {scorers: [{name: lora}]}}": {filter.NeedSubset | filter.NeedModel, "lora_path"},
		"profile: {scorers: [{name: queue}], allSaturated: weighted}":                  {filter.NeedSubset | filter.NeedPrefix, partitions},
	} {
		f := newRig(t, doc).f
		require.Equal(t, want.needs, f.Needs(), doc)
		require.Equal(t, want.fields, strings.Join(f.Fields(), " "), doc)
	}
}

// Weights decide between scorers that disagree.
func TestWeights(t *testing.T) {
	for doc, want := range map[string]string{
		"{name: queue, weight: 3}, {name: kv-cache}": "10.0.0.000:80",
		"{name: queue}, {name: kv-cache, weight: 3}": "10.0.0.001:80",
	} {
		r := newRig(t, "profile: {scorers: ["+doc+"]}")
		eps := ready(2)
		eps[0].Gauges.KVUse, eps[1].Gauges.Waiting = 0.6, 4
		r.serve(eps...)
		require.Equal(t, want, r.send(t, request(0, 0)), doc)
	}
}

// A saturated replica comes last, unless the profile ignores it. When all are, the
// profile for that takes over, at any depth.
func TestSaturatedReplicas(t *testing.T) {
	for _, c := range []struct {
		profile   string
		saturated int // replicas
		want      string
	}{
		{"{scorers: [{name: kv-cache}]}", 1, "10.0.0.001:80"},
		{"{scorers: [{name: kv-cache}], saturated: last}", 1, "10.0.0.001:80"},
		{"{scorers: [{name: kv-cache}], saturated: ignore}", 1, "10.0.0.000:80"},
		{"{scorers: [{name: kv-cache}]}", 2, "10.0.0.000:80"},
		{"{scorers: [{name: kv-cache}], allSaturated: {scorers: [{name: queue}]}}", 1, "10.0.0.001:80"},
		{"{scorers: [{name: kv-cache}], allSaturated: {scorers: [{name: queue}]}}", 2, "10.0.0.001:80"},
		{"{scorers: [{name: kv-cache}], allSaturated: {scorers: [{name: kv-cache}], allSaturated: {scorers: [{name: queue}]}}}", 2, "10.0.0.001:80"},
	} {
		r := newRig(t, "profile: "+c.profile)
		eps := ready(2)
		eps[0].Gauges.Waiting = 20
		eps[1].Gauges.KVUse = 0.7 // more than the other's, whose queue is longer
		if c.saturated == 2 {
			eps[1].Gauges.Waiting = 10
		}
		r.serve(eps...)
		require.Equal(t, c.want, r.send(t, request(0, 0)), "%s, %d saturated", c.profile, c.saturated)
	}
}

// With affinity a prompt stays where it is cached, whatever the scorers say.
func TestAffinityComesBeforeScores(t *testing.T) {
	for profile, stays := range map[string]bool{
		"{scorers: [{name: queue}], affinity: true}":  true,
		"{scorers: [{name: queue}], affinity: false}": false,
	} {
		r := newRig(t, "profile: "+profile)
		eps := ready(4)
		r.serve(eps...)
		at := r.serveOne(t, request(1, 20), 200)
		for i := range eps {
			if eps[i].Address == at {
				eps[i].Gauges.Waiting = 3
			}
		}
		r.serve(eps...)
		require.Equal(t, stays, r.serveOne(t, request(1, 21), 200) == at, profile)
	}
}
