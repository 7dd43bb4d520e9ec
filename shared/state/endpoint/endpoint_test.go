package endpoint_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

var taken = time.Unix(1_790_000_000, 123_456_789)

// twoPools is a snapshot whose numbers survive the rounding of the wire.
func twoPools() *endpoint.Snapshot {
	return &endpoint.Snapshot{
		Source: 0xfeedfacecafebeef, Version: 7, Taken: taken,
		Pools: []endpoint.Pool{
			{Name: "gemma"},
			{Name: "llama", Endpoints: []endpoint.Endpoint{
				{Address: "10.0.0.1:8000", Ready: true, Gauges: endpoint.Gauges{Known: true, Age: 42 * time.Millisecond, Waiting: 3, Running: 17, KVUse: 13107.0 / 65535}},
				{Address: "10.0.0.2:8000"},
				{Address: "[2001:db8::1]:8000", Ready: true},
				{Address: "[2001:db8::2]:8000", Gauges: endpoint.Gauges{Known: true, KVUse: 1}},
			}},
		},
	}
}

// talkative is twoPools where some endpoints tell what they serve.
func talkative() *endpoint.Snapshot {
	s := twoPools()
	llama := s.Pools[1].Endpoints
	llama[0].Models = &endpoint.Models{
		Names: []string{"llama", "llama-3-8b"}, Adapters: []endpoint.Adapter{{Name: "law", Parent: "llama-3-8b"}, {Name: "sql"}},
	}
	llama[0].LoRA = &endpoint.LoRA{Running: []string{"law"}, Waiting: []string{"law", "sql"}, Max: 4}
	llama[0].Cache = endpoint.Cache{BlockTokens: 16, Blocks: 27876}
	llama[1].Models = &endpoint.Models{} // it serves nothing yet
	llama[2].Models = llama[0].Models
	llama[2].LoRA = &endpoint.LoRA{}
	llama[1].Started = 1_789_999_000
	llama[3].Priority, llama[3].Started = 10, 1_789_999_001
	return s
}

// replicas is a snapshot of n replicas with busy gauges.
func replicas(n int) *endpoint.Snapshot {
	s := &endpoint.Snapshot{Source: math.MaxUint64, Version: 1 << 40, Taken: taken, Pools: []endpoint.Pool{{Name: "llama"}}}
	for i := range n {
		s.Pools[0].Endpoints = append(s.Pools[0].Endpoints, endpoint.Endpoint{
			Address: fmt.Sprintf("10.101.%03d.%03d:8000", i/250, i%250), Ready: true,
			Gauges: endpoint.Gauges{Known: true, Age: 137 * time.Millisecond, Waiting: i % 200, Running: i % 256, KVUse: float64(i%100) / 100},
		})
	}
	return s
}

var exact = cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })}

func TestRoundTrip(t *testing.T) {
	for name, s := range map[string]*endpoint.Snapshot{
		"nothing":   {Taken: taken},
		"two pools": twoPools(),
		"talkative": talkative(),
		"sleeping":  {Source: 1, Version: 2, Taken: time.Unix(0, 0), Pools: []endpoint.Pool{{Name: "p", Endpoints: []endpoint.Endpoint{{Address: "1.1.1.1:1"}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := endpoint.Decode(endpoint.Append(nil, s))
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(s, got, exact))
		})
	}
}

// Any snapshot comes back the same, but for the steps of the wire, and encodes to the same bytes again.
func TestRoundTripOfAnySnapshot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anySnapshot(t)
		wire := endpoint.Append(nil, s)
		got, err := endpoint.Decode(wire)
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(s, got, exact, cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= 0.5/65535+1e-12 })))
		require.Equal(t, wire, endpoint.Append(nil, got))

		prefix := []byte("already there")
		require.Equal(t, append(prefix, wire...), endpoint.Append([]byte("already there"), s))
	})
}

func anySnapshot(t *rapid.T) *endpoint.Snapshot {
	s := &endpoint.Snapshot{
		Source: rapid.Uint64().Draw(t, "source"), Version: rapid.Uint64().Draw(t, "version"),
		Taken: time.Unix(0, rapid.Int64().Draw(t, "taken")),
	}
	for _, name := range rapid.SliceOfNDistinct(rapid.StringN(1, 8, 40), 0, 4, rapid.ID).Draw(t, "pools") {
		p := endpoint.Pool{Name: name}
		for _, address := range rapid.SliceOfNDistinct(rapid.StringN(1, 21, 40), 0, 6, rapid.ID).Draw(t, "addresses") {
			e := endpoint.Endpoint{Address: address, Ready: rapid.Bool().Draw(t, "ready")}
			if rapid.Bool().Draw(t, "known") {
				e.Gauges = endpoint.Gauges{
					Known: true, Age: time.Duration(rapid.Int64Range(0, math.MaxInt64/1000).Draw(t, "age")) * time.Microsecond,
					Waiting: int(rapid.Int32Min(0).Draw(t, "waiting")), Running: int(rapid.Int32Min(0).Draw(t, "running")),
					KVUse: rapid.Float64Range(0, 1).Draw(t, "kv"),
				}
			}
			anyFacts(t, &e)
			p.Endpoints = append(p.Endpoints, e)
		}
		s.Pools = append(s.Pools, p)
	}
	s.Sort()
	return s
}

func anyFacts(t *rapid.T, e *endpoint.Endpoint) {
	name := rapid.SampledFrom([]string{"a", "b", "c", "d", "a longer name"})
	if rapid.Bool().Draw(t, "models") {
		e.Models = &endpoint.Models{Names: rapid.SliceOfN(name, 0, 3).Draw(t, "models")}
		for _, n := range rapid.SliceOfN(name, 0, 3).Draw(t, "adapters") {
			e.Models.Adapters = append(e.Models.Adapters, endpoint.Adapter{Name: n, Parent: rapid.SampledFrom([]string{"", "a", "e"}).Draw(t, "parent")})
		}
	}
	e.LoRA = anyLoRA(t)
	if rapid.Bool().Draw(t, "cache") {
		e.Cache = endpoint.Cache{BlockTokens: rapid.Int32Min(0).Draw(t, "tokens"), Blocks: rapid.Int32Min(0).Draw(t, "blocks")}
	}
	if rapid.Bool().Draw(t, "origin") {
		e.Priority, e.Started = rapid.Uint16().Draw(t, "priority"), rapid.Int64Min(0).Draw(t, "started")
	}
}

func anyLoRA(t *rapid.T) *endpoint.LoRA {
	if rapid.Bool().Draw(t, "no LoRA") {
		return nil
	}
	name := rapid.SampledFrom([]string{"a", "b", "c", "d", "a longer name"})
	return &endpoint.LoRA{
		Running: rapid.SliceOfN(name, 0, 4).Draw(t, "running"), Waiting: rapid.SliceOfN(name, 0, 4).Draw(t, "waiting"),
		Max: int(rapid.Int32Range(0, math.MaxInt32-1).Draw(t, "max")),
	}
}

func TestGaugesOutOfRangeAreClamped(t *testing.T) {
	for _, c := range []struct{ in, want endpoint.Gauges }{
		{endpoint.Gauges{Age: -time.Second, Waiting: -1, Running: -5, KVUse: -0.1}, endpoint.Gauges{}},
		{endpoint.Gauges{Waiting: math.MaxInt, Running: math.MaxInt, KVUse: 1.5}, endpoint.Gauges{Waiting: math.MaxInt32, Running: math.MaxInt32, KVUse: 1}},
		{endpoint.Gauges{KVUse: math.NaN()}, endpoint.Gauges{}},
		{endpoint.Gauges{KVUse: math.Inf(1)}, endpoint.Gauges{KVUse: 1}},
	} {
		c.in.Known, c.want.Known = true, true
		got, err := endpoint.Decode(endpoint.Append(nil, &endpoint.Snapshot{Taken: taken, Pools: []endpoint.Pool{
			{Name: "p", Endpoints: []endpoint.Endpoint{{Address: "a:1", Gauges: c.in}}},
		}}))
		require.NoError(t, err)
		require.Equal(t, c.want, got.Pools[0].Endpoints[0].Gauges)
	}
}

func section(kind uint16, body ...byte) []byte {
	b := binary.LittleEndian.AppendUint16(nil, kind)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(body))), body...)
}

func wire(sections ...[]byte) []byte {
	b := []byte("inlt\x01")
	for _, s := range sections {
		b = append(b, s...)
	}
	return b
}

var (
	head  = section(1, make([]byte, 24)...)
	empty = section(2, 0, 0)
	one   = section(2, 1, 1, 1, 'p', 1, 1, 'x', 0)
)

// A newer companion may say more: sections that this build does not know are skipped.
func TestUnknownSectionsAreSkipped(t *testing.T) {
	got, err := endpoint.Decode(wire(section(0, 1, 2, 3), head, empty, section(3, 9, 9), section(65535)))
	require.NoError(t, err)
	require.Empty(t, got.Pools)
}

// upTo is what a proxy reads that knows no section after last.
func upTo(last uint16, wire []byte) []byte {
	known := wire[:5:5]
	for rest := wire[5:]; len(rest) > 0; {
		size := 6 + int(binary.LittleEndian.Uint32(rest[2:]))
		if binary.LittleEndian.Uint16(rest) <= last {
			known = append(known, rest[:size]...)
		}
		rest = rest[size:]
	}
	return known
}

// The first proxies knew head and pools alone and skip the rest: they get what they always got.
func TestTheFirstSectionsAreAsEver(t *testing.T) {
	require.Equal(t, endpoint.Append(nil, twoPools()), upTo(2, endpoint.Append(nil, talkative())))
}

// Priority and start came later than models, LoRA and cache: a proxy from before gets those byte for byte, and what a companion from before
// tells is read as no rank and an unknown start.
func TestOriginIsASectionOfItsOwn(t *testing.T) {
	without := talkative()
	for _, p := range without.Pools {
		for i := range p.Endpoints {
			p.Endpoints[i].Priority, p.Endpoints[i].Started = 0, 0
		}
	}
	before := endpoint.Append(nil, without)
	require.Equal(t, before, upTo(18, endpoint.Append(nil, talkative())))

	var series endpoint.Series
	for _, wire := range [][]byte{endpoint.Append(nil, talkative()), before, endpoint.Append(nil, talkative()), before} {
		got, err := series.Read(wire)
		require.NoError(t, err)
		want, err := endpoint.Decode(wire)
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(want, got, exact))
	}
	last, err := endpoint.Decode(before)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(without, last, exact))
}

var malformed = map[string]struct {
	wire []byte
	want string
}{
	"empty":                    {nil, `malformed snapshot: does not begin with "inlt"`},
	"something else":           {[]byte("<html></html>"), `malformed snapshot: does not begin with "inlt"`},
	"another format":           {[]byte("inlt\x02"), "malformed snapshot: format 2, this build reads 1"},
	"no sections":              {wire(), "malformed snapshot: a required section is missing"},
	"no pools":                 {wire(head), "malformed snapshot: a required section is missing"},
	"no head":                  {wire(empty), "malformed snapshot: a required section is missing"},
	"half a section header":    {wire(head, empty, []byte{3, 0, 0}), "malformed snapshot: cut off in a section header"},
	"a section cut off":        {wire(head, empty[:len(empty)-1]), "malformed snapshot: section 2 cut off"},
	"a section of 4 GB":        {wire(head, []byte{9, 0, 255, 255, 255, 255, 1}), "malformed snapshot: section 9 cut off"},
	"a section twice":          {wire(head, head, empty), "malformed snapshot: section 1 after section 1"},
	"sections out of order":    {wire(empty, head), "malformed snapshot: section 1 after section 2"},
	"a short head":             {wire(section(1, 1, 2, 3), empty), "malformed snapshot: a head of 3 bytes"},
	"a long head":              {wire(section(1, make([]byte, 25)...), empty), "malformed snapshot: a head of 25 bytes"},
	"models before pools":      {wire(head, section(16, 0, 0)), "malformed snapshot: section 16 without pools"},
	"pools and a base":         {wire(head, empty, section(32, make([]byte, 8)...)), "malformed snapshot: a base with pools or without head"},
	"a base without head":      {wire(section(32, make([]byte, 8)...)), "malformed snapshot: a base with pools or without head"},
	"changes without base":     {wire(head, empty, section(33, 0, 0, 0, 0)), "malformed snapshot: changes without a base"},
	"a base of 7 bytes":        {wire(head, section(32, make([]byte, 7)...)), "malformed snapshot: a base of 7 bytes"},
	"models without sets":      {wire(head, one, section(16, 0)), "malformed snapshot: models: cut off"},
	"a set that is not there":  {wire(head, one, section(16, 0, 0, 1)), "malformed snapshot: models: a number is out of range"},
	"a name that is not there": {wire(head, one, section(16, 1, 1, 'm', 1, 1, 1, 0, 1)), "malformed snapshot: models: there is no such name"},
	"a parent not there":       {wire(head, one, section(16, 1, 1, 'm', 1, 0, 1, 0, 2, 1)), "malformed snapshot: models: a number is out of range"},
	"more sets than bytes":     {wire(head, one, section(16, 0, 9, 0)), "malformed snapshot: models: a count is larger than what follows"},
	"bytes after the models":   {wire(head, one, section(16, 0, 0, 0, 0)), "malformed snapshot: models: more than was announced, or less"},
	"more LoRA than announced": {wire(head, one, section(17, 0, 0, 0, 1, 0, 0)), "malformed snapshot: LoRA: more than was announced, or less"},
	"less LoRA than announced": {wire(head, one, section(17, 0, 0, 1, 0)), "malformed snapshot: LoRA: more than was announced, or less"},
	"LoRA names not announced": {wire(head, one, section(17, 1, 1, 'm', 1, 0, 1, 1, 0, 0)), "malformed snapshot: LoRA: a number is out of range"},
	"LoRA cut off":             {wire(head, one, section(17, 0, 0, 0)), "malformed snapshot: LoRA: cut off"},
	"cache cut off":            {wire(head, one, section(18, 16)), "malformed snapshot: cache: cut off"},
	"origin cut off":           {wire(head, one, section(19, 1)), "malformed snapshot: origin: cut off"},
	"origin before pools":      {wire(head, section(19, 0, 0)), "malformed snapshot: section 19 without pools"},
	"bytes after the origin":   {wire(head, one, section(19, 1, 1, 1)), "malformed snapshot: origin: more than was announced, or less"},
	"a priority over 16 bits":  {wire(head, one, section(19, 0x80, 0x80, 0x04, 0)), "malformed snapshot: origin: a number is out of range"},
	"bytes after the cache":    {wire(head, one, section(18, 16, 1, 1)), "malformed snapshot: cache: more than was announced, or less"},
	"pools without counts":     {wire(head, section(2)), "malformed snapshot: pools: cut off"},
	"more pools than bytes":    {wire(head, section(2, 1, 0)), "malformed snapshot: pools: a count is larger than what follows"},
	"more endpoints":           {wire(head, section(2, 0, 1)), "malformed snapshot: pools: a count is larger than what follows"},
	"a giant count":            {wire(head, section(2, 0xff, 0xff, 0xff, 0xff, 0x07, 0)), "malformed snapshot: pools: a count is larger than what follows"},
	"a count over 31 bits":     {wire(head, section(2, 0xff, 0xff, 0xff, 0xff, 0x7f, 0)), "malformed snapshot: pools: a number is out of range"},
	"a number over 64 bits":    {wire(head, section(2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0)), "malformed snapshot: pools: a number is written wrongly"},
	"a number in a long form":  {wire(head, section(2, 0x80, 0x00, 0)), "malformed snapshot: pools: a number is written wrongly"},
	"a pool without name":      {wire(head, section(2, 1, 0, 0, 0, 0)), "malformed snapshot: pools: a name is empty"},
	"a name cut off":           {wire(head, section(2, 1, 0, 3, 'a', 'b')), "malformed snapshot: pools: a count is larger than what follows"},
	"pool takes more than all": {wire(head, section(2, 1, 0, 1, 'a', 1)), "malformed snapshot: pools: a number is out of range"},
	"pools unsorted":           {wire(head, section(2, 2, 0, 1, 'b', 0, 1, 'a', 0)), "malformed snapshot: pools: pools are not sorted by name"},
	"pool twice":               {wire(head, section(2, 2, 0, 1, 'a', 0, 1, 'a', 0)), "malformed snapshot: pools: pools are not sorted by name"},
	"endpoints unsorted":       {wire(head, section(2, 1, 2, 1, 'a', 2, 1, 'y', 0, 1, 'x', 0)), "malformed snapshot: pools: endpoints are not sorted by address"},
	"endpoint twice":           {wire(head, section(2, 1, 2, 1, 'a', 2, 1, 'x', 0, 1, 'x', 0)), "malformed snapshot: pools: endpoints are not sorted by address"},
	"unknown flags":            {wire(head, section(2, 1, 1, 1, 'a', 1, 1, 'x', 4)), "malformed snapshot: pools: unknown flags"},
	"gauges cut off":           {wire(head, section(2, 1, 1, 1, 'a', 1, 1, 'x', 2, 5, 5, 5, 5)), "malformed snapshot: pools: cut off"},
	"bytes after the pools":    {wire(head, section(2, 0, 0, 0)), "malformed snapshot: pools: more than was announced, or less"},
	"fewer endpoints":          {wire(head, section(2, 1, 1, 1, 'a', 0, 0, 0, 0)), "malformed snapshot: pools: more than was announced, or less"},
}

func TestMalformed(t *testing.T) {
	for name, c := range malformed {
		t.Run(name, func(t *testing.T) {
			_, err := endpoint.Decode(c.wire)
			require.EqualError(t, err, c.want)
			require.ErrorIs(t, err, endpoint.ErrMalformed)
		})
	}
}

// No prefix of a snapshot is a snapshot.
func TestEveryTruncationIsAnError(t *testing.T) {
	whole := endpoint.Append(nil, talkative())
	sections := map[int]bool{}
	for n := 5; n < len(whole); n += 6 + int(binary.LittleEndian.Uint32(whole[n+2:])) {
		sections[n] = true
	}
	require.Len(t, sections, 6)
	for n := range whole {
		if sections[n] {
			continue // cut between two sections: it tells less, or nothing
		}
		_, err := endpoint.Decode(whole[:n])
		require.ErrorIs(t, err, endpoint.ErrMalformed, "cut at %d of %d", n, len(whole))
	}
}

// Nor is one of which a section is shorter than it was, also if it says so.
func TestEveryShorterSectionIsAnError(t *testing.T) {
	whole := endpoint.Append(nil, talkative())
	for from := 5; from < len(whole); {
		size := int(binary.LittleEndian.Uint32(whole[from+2:]))
		kind, body, rest := binary.LittleEndian.Uint16(whole[from:]), whole[from+6:from+6+size], whole[from+6+size:]
		for n := range body {
			_, err := endpoint.Decode(slices.Concat(whole[:from], section(kind, body[:n]...), rest))
			require.ErrorIs(t, err, endpoint.ErrMalformed, "section %d, %d of %d bytes", kind, n, size)
		}
		from += 6 + size
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range malformed {
		f.Add(c.wire)
	}
	f.Add(endpoint.Append(nil, twoPools()))
	f.Add(endpoint.Append(nil, talkative()))
	f.Add(endpoint.Append(nil, replicas(20)))
	f.Add(wire(section(0, 1, 2, 3), head, empty, section(3, 9, 9)))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := endpoint.Decode(b)
		if err != nil {
			require.True(t, errors.Is(err, endpoint.ErrMalformed) || errors.Is(err, endpoint.ErrBase), "%v", err)
			return
		}
		again, err := endpoint.Decode(endpoint.Append(nil, s))
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(s, again, exact))
	})
}

func TestSizeAndAllocations(t *testing.T) {
	s := replicas(1000)
	wire := endpoint.Append(nil, s)
	for name, s := range map[string]*endpoint.Snapshot{"gauges": s, "everything": adapted(replicas(1000))} {
		perReplica := float64(len(endpoint.Append(nil, s))) / 1000
		t.Logf("%s: %.1f bytes per replica", name, perReplica)
		require.LessOrEqual(t, perReplica, 100.0, name)
	}

	require.Zero(t, testing.AllocsPerRun(20, func() { wire = endpoint.Append(wire[:0], s) }))
	require.LessOrEqual(t, testing.AllocsPerRun(20, func() { _, _ = endpoint.Decode(wire) }), 4.0, "snapshot, pools, endpoints, names")
}

// What was decoded does not depend on the buffer: hosts reuse it.
func TestDecodeKeepsNothingOfItsInput(t *testing.T) {
	b := endpoint.Append(nil, twoPools())
	got, err := endpoint.Decode(b)
	require.NoError(t, err)
	clear(b)
	require.Empty(t, cmp.Diff(twoPools(), got, exact))
}

// The endpoints of all pools lie in one slice: appending to one pool must not write into the next.
func TestPoolsAreApart(t *testing.T) {
	s := &endpoint.Snapshot{Taken: taken, Pools: []endpoint.Pool{
		{Name: "a", Endpoints: []endpoint.Endpoint{{Address: "1:1"}}}, {Name: "b", Endpoints: []endpoint.Endpoint{{Address: "2:2"}}},
	}}
	got, err := endpoint.Decode(endpoint.Append(nil, s))
	require.NoError(t, err)
	_ = append(got.Pools[0].Endpoints, endpoint.Endpoint{Address: "3:3"})
	require.Equal(t, "2:2", got.Pools[1].Endpoints[0].Address)
}

func TestPool(t *testing.T) {
	s := twoPools()
	require.Same(t, &s.Pools[1], s.Pool("llama"))
	require.Nil(t, s.Pool("none"))
	require.Zero(t, testing.AllocsPerRun(10, func() { s.Pool("llama") }))
}

func TestAttach(t *testing.T) {
	s := twoPools()
	s.Pools[0].Endpoints = []endpoint.Endpoint{{Address: "10.0.0.1:8000"}}
	counters := mem.NewCounters()
	counters.Open("10.0.0.1:8000").Add(2)
	s.Attach(counters, nil)
	for _, p := range s.Pools {
		for _, e := range p.Endpoints {
			require.NotNil(t, e.Load)
		}
	}
	llama := s.Pools[1].Endpoints
	require.EqualValues(t, 2, llama[0].Load.Requests.Value())
	require.Equal(t, s.Pools[0].Endpoints[0].Load, llama[0].Load, "one replica in two pools")
	require.NotSame(t, llama[0].Load.Requests, llama[0].Load.Tokens)
	require.NotSame(t, llama[0].Load.Requests, llama[1].Load.Requests)

	next := twoPools()
	next.Pools[1].Endpoints = next.Pools[1].Endpoints[1:]
	next.Pools[1].Endpoints[0].Address = llama[0].Address
	next.Attach(counters, s)
	require.Same(t, llama[0].Load, next.Pools[1].Endpoints[0].Load, "it is taken over")
	require.Equal(t, llama[2].Load, next.Pools[1].Endpoints[1].Load, "at another place it is found")
}

func TestTrust(t *testing.T) {
	const stale = 2 * time.Second
	at := func(age time.Duration) endpoint.Gauges { return endpoint.Gauges{Known: true, Age: age} }
	for _, c := range []struct {
		gauges     endpoint.Gauges
		sinceTaken time.Duration
		want       float64
	}{
		{endpoint.Gauges{}, 0, 0},
		{at(0), 0, 1},
		{at(500 * time.Millisecond), 500 * time.Millisecond, 1},
		{at(time.Second), 500 * time.Millisecond, 0.5},
		{at(0), 1500 * time.Millisecond, 0.5},
		{at(1900 * time.Millisecond), 0, 0.1},
		{at(stale), 0, 0},
		{at(time.Hour), time.Hour, 0},
		{at(0), -time.Second, 1}, // a clock that was set back
		{at(math.MaxInt64), time.Hour, 0},
	} {
		require.InDelta(t, c.want, c.gauges.Trust(c.sinceTaken, stale), 1e-9, "%+v after %v", c.gauges, c.sinceTaken)
	}
	require.Zero(t, at(0).Trust(0, 0))
}

// Trust stays within 0..1, never grows with age, and reaches 0 at stale.
func TestTrustLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		duration := rapid.Map(rapid.Int64Range(0, int64(time.Hour)), func(n int64) time.Duration { return time.Duration(n) })
		stale, age, since, more := duration.Draw(t, "stale"), duration.Draw(t, "age"), duration.Draw(t, "since"), duration.Draw(t, "more")
		g := endpoint.Gauges{Known: true, Age: age}
		now, later := g.Trust(since, stale), g.Trust(since+more, stale)
		require.True(t, 0 <= now && now <= 1)
		require.LessOrEqual(t, later, now)
		require.Zero(t, g.Trust(stale, stale))
		older := endpoint.Gauges{Known: true, Age: age + more}
		require.Equal(t, later, older.Trust(since, stale), "it is the same whether a gauge aged here or there")
	})
}

func TestPath(t *testing.T) {
	require.Equal(t, "/v1/snapshot?worker=envoy-1.0_a~b&wait=20000", endpoint.Path(nil, "envoy-1.0_a~b", 20*time.Second))
	require.Equal(t, "/v1/snapshot?since=18369614221190020847-7&worker=a&wait=0", endpoint.Path(twoPools(), "a", 0))
	rapid.Check(t, func(t *rapid.T) {
		worker := rapid.String().Draw(t, "worker")
		u, err := url.Parse(endpoint.Path(twoPools(), worker, time.Second))
		require.NoError(t, err)
		require.Equal(t, worker, u.Query().Get("worker"))
		require.Equal(t, "1000", u.Query().Get("wait"))
		require.Equal(t, twoPools().ID(), u.Query().Get("since"))
	})
}

func TestID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := endpoint.Snapshot{Source: rapid.Uint64().Draw(t, "source"), Version: rapid.Uint64().Draw(t, "version")}
		source, version, err := endpoint.ParseID(s.ID())
		require.NoError(t, err)
		require.Equal(t, s, endpoint.Snapshot{Source: source, Version: version})
	})
	for _, bad := range []string{"", "1", "-", "1-", "-1", "1-x", "1-2-3", " 1-2", "18446744073709551616-1"} {
		_, _, err := endpoint.ParseID(bad)
		require.EqualError(t, err, fmt.Sprintf("%q is not <source>-<version>", bad))
	}
}

func TestSort(t *testing.T) {
	s := &endpoint.Snapshot{Taken: taken, Pools: []endpoint.Pool{{Name: "b", Endpoints: []endpoint.Endpoint{{Address: "2:1"}, {Address: "1:1"}}}, {Name: "a"}}}
	s.Sort()
	_, err := endpoint.Decode(endpoint.Append(nil, s))
	require.NoError(t, err)
	require.True(t, strings.Compare(s.Pools[0].Name, s.Pools[1].Name) < 0)
}

func BenchmarkAppend1000(b *testing.B) {
	s := replicas(1000)
	wire := endpoint.Append(nil, s)
	b.ReportAllocs()
	b.ReportMetric(float64(len(wire))/1000, "bytes/replica")
	for b.Loop() {
		wire = endpoint.Append(wire[:0], s)
	}
}

func BenchmarkDecode1000(b *testing.B) {
	for name, s := range map[string]*endpoint.Snapshot{"gauges": replicas(1000), "everything": adapted(replicas(1000))} {
		b.Run(name, func(b *testing.B) {
			wire := endpoint.Append(nil, s)
			b.ReportAllocs()
			b.ReportMetric(float64(len(wire))/1000, "bytes/replica")
			for b.Loop() {
				if _, err := endpoint.Decode(wire); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What a proxy does with a change: decode it and attach its counters.
func BenchmarkApply1000(b *testing.B) {
	wire := endpoint.Append(nil, replicas(1000))
	for name, counters := range map[string]kv.Counters{"mem": mem.NewCounters(), "ledger": kv.NewLedger(mem.NewStore(), "w", time.Now, time.Second)} {
		b.Run(name, func(b *testing.B) {
			var have *endpoint.Snapshot
			b.ReportAllocs()
			for b.Loop() {
				s, err := endpoint.Decode(wire)
				if err != nil {
					b.Fatal(err)
				}
				s.Attach(counters, have)
				have = s
			}
		})
	}
}

func BenchmarkPool(b *testing.B) {
	s := &endpoint.Snapshot{}
	for i := range 100 {
		s.Pools = append(s.Pools, endpoint.Pool{Name: fmt.Sprintf("pool-%03d", i)})
	}
	b.ReportAllocs()
	for b.Loop() {
		s.Pool("pool-099")
	}
}
