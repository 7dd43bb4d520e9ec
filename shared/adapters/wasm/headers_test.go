package wasm

import (
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// fakeMap behaves like Envoy's header map behind the ABI.
type fakeMap struct {
	list    [][2]string
	fetches int
	calls   int
	fail    error
}

func (m *fakeMap) of() *headerMap {
	return &headerMap{
		all: func(list [][2]string, _ *[]byte) ([][2]string, error) {
			m.fetches++
			return append(list, m.list...), m.fail
		},
		add: func(name, value string) error {
			m.calls++
			m.list = append(m.list, [2]string{name, value})
			return m.fail
		},
		replace: func(name, value string) error {
			m.calls++
			for i := range m.list {
				if m.list[i][0] == name {
					m.list[i][1] = value
					return m.fail
				}
			}
			m.list = append(m.list, [2]string{name, value})
			return m.fail
		},
		remove: func(name string) error {
			m.calls++
			m.list = slices.DeleteFunc(m.list, func(p [2]string) bool { return p[0] == name })
			return m.fail
		},
	}
}

func set(name, value string) filter.HeaderEdit { return filter.HeaderEdit{Name: name, Value: value} }

func remove(name string) filter.HeaderEdit { return filter.HeaderEdit{Name: name, Remove: true} }

func TestHeadersAreFetchedOnceAndEditedWithFewCalls(t *testing.T) {
	for _, c := range []struct {
		name  string
		edits []filter.HeaderEdit
		calls int
		want  [][2]string
	}{
		{"nothing", nil, 0, [][2]string{{"a", "1"}, {"b", "2"}, {"b", "3"}}},
		{"a new header", []filter.HeaderEdit{set("c", "4")}, 1, [][2]string{{"a", "1"}, {"b", "2"}, {"b", "3"}, {"c", "4"}}},
		{"another value", []filter.HeaderEdit{set("a", "4")}, 1, [][2]string{{"a", "4"}, {"b", "2"}, {"b", "3"}}},
		{"the same value", []filter.HeaderEdit{set("a", "1")}, 0, [][2]string{{"a", "1"}, {"b", "2"}, {"b", "3"}}},
		{"one value for two", []filter.HeaderEdit{set("b", "2")}, 2, [][2]string{{"a", "1"}, {"b", "2"}}},
		{"removal of two", []filter.HeaderEdit{remove("b")}, 1, [][2]string{{"a", "1"}}},
		{"removal of none", []filter.HeaderEdit{remove("x")}, 0, [][2]string{{"a", "1"}, {"b", "2"}, {"b", "3"}}},
		{"removed, then set", []filter.HeaderEdit{remove("a"), set("a", "5")}, 1, [][2]string{{"a", "5"}, {"b", "2"}, {"b", "3"}}},
		{"set, then removed", []filter.HeaderEdit{set("a", "5"), remove("a")}, 1, [][2]string{{"b", "2"}, {"b", "3"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &fakeMap{list: [][2]string{{"a", "1"}, {"b", "2"}, {"b", "3"}}}
			h := headers{of: m.of()}
			require.NoError(t, h.apply(c.edits))
			require.Equal(t, c.want, m.list)
			require.Equal(t, c.calls, m.calls)
			require.Equal(t, m.list, h.list, "the local copy keeps in step")
			require.Equal(t, 1, m.fetches)
		})
	}
}

// Whatever the edits: a header that was set has that one value, one that was
// removed is gone, all others stay, and the copy tells the truth.
func TestHeaderEditsHold(t *testing.T) {
	names := rapid.SampledFrom([]string{"a", "b", "c", "d"})
	values := rapid.SampledFrom([]string{"", "1", "2"})
	rapid.Check(t, func(t *rapid.T) {
		m := &fakeMap{list: rapid.SliceOf(rapid.Custom(func(t *rapid.T) [2]string {
			return [2]string{names.Draw(t, "name"), values.Draw(t, "value")}
		})).Draw(t, "headers")}
		edits := rapid.SliceOf(rapid.Custom(func(t *rapid.T) filter.HeaderEdit {
			return filter.HeaderEdit{Name: names.Draw(t, "name"), Value: values.Draw(t, "value"), Remove: rapid.Bool().Draw(t, "remove")}
		})).Draw(t, "edits")
		want := map[string][]string{}
		for _, p := range m.list {
			want[p[0]] = append(want[p[0]], p[1])
		}
		for _, e := range edits {
			delete(want, e.Name)
			if !e.Remove {
				want[e.Name] = []string{e.Value}
			}
		}
		h := headers{of: m.of()}
		require.NoError(t, h.apply(edits))
		got := map[string][]string{}
		for _, p := range m.list {
			got[p[0]] = append(got[p[0]], p[1])
		}
		require.Equal(t, want, got)
		for _, name := range []string{"a", "b", "c", "d"} {
			value, ok := h.Get(name)
			require.Equal(t, len(want[name]) > 0, ok)
			if ok {
				require.Equal(t, want[name][0], value)
			}
		}
	})
}

func TestHeadersOfALocalReplyAreFetchedAnew(t *testing.T) {
	m := &fakeMap{list: [][2]string{{":status", "200"}}}
	h := headers{of: m.of()}
	got, _ := h.Get(":status")
	require.Equal(t, "200", got)
	m.list = [][2]string{{":status", "502"}}
	h.forget()
	got, _ = h.Get(":status")
	require.Equal(t, "502", got)
}

// What is kept between exchanges: the memory of usual headers, but no string, and nothing of long ones.
func TestHeadersKeepLittle(t *testing.T) {
	for _, c := range []struct {
		size int
		kept bool
	}{{100, true}, {maxHeaders, true}, {maxHeaders + 1, false}} {
		of := (&fakeMap{}).of()
		of.all = func(list [][2]string, memory *[]byte) ([][2]string, error) {
			*memory = make([]byte, c.size)
			return append(list, [2]string{"a", string(*memory)}), nil
		}
		p := &plugin{}
		k := &kit{request: headers{of: of}, response: headers{of: of}}
		for _, h := range []*headers{&k.request, &k.response} {
			h.fetch()
		}
		p.keep(k)
		for _, h := range []*headers{&k.request, &k.response} {
			require.Equal(t, c.kept, cap(h.text) > 0)
			require.Equal(t, c.kept, cap(h.list) > 0)
			require.Empty(t, h.list)
			for _, pair := range h.list[:cap(h.list)] {
				require.Empty(t, pair)
			}
			require.False(t, h.fetched)
		}
	}
}

func TestARefusedEditIsAnError(t *testing.T) {
	m := &fakeMap{list: [][2]string{{"a", "1"}, {"b", "1"}, {"b", "2"}}}
	h := headers{of: m.of()}
	h.fetch()
	m.fail = errors.New("no")
	require.Error(t, h.apply([]filter.HeaderEdit{set("a", "2")}))
	require.Error(t, h.apply([]filter.HeaderEdit{set("b", "2")}))
	require.Error(t, h.apply([]filter.HeaderEdit{set("c", "2")}))
	require.Error(t, h.apply([]filter.HeaderEdit{remove("a")}))
}
