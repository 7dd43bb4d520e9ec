package account_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/account"
	"github.com/inlet-proxy/inlet/shared/state/kv"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

// three are the demands of a request with three limits.
func three() []account.Demand {
	return request(
		counted(demand("trial/requests:1m/app=a", 1<<40, minute, 1)),
		demand("trial/total-tokens:1m/app=a", 1<<50, minute, 700),
		demand("trial/open/app=a", 1<<20, account.Window{}, 1),
	)
}

// A request with three limits costs no allocation.
func TestMemoryDoesNotAllocate(t *testing.T) {
	table := account.NewMemory(account.Options{Accounts: 100}, new(sync.Mutex))
	template, d, used, now := three(), three(), []int64{1, 321, 1}, begin
	admitted := true
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		copy(d, template)
		now = now.Add(100 * time.Millisecond) // through many windows
		admitted = table.Take(now, d, hold).Outcome == account.Admitted && admitted
		_ = table.Standing(now, &d[1])
		_ = table.Settle(now, d, used)
	}))
	require.True(t, admitted)
}

// flat is a store that does not allocate, as Envoy's does not in the filter's memory.
type flat struct {
	values map[string][]byte
	cas    uint32
}

func (f *flat) Get(key string) ([]byte, uint32, error) {
	v, ok := f.values[key]
	if !ok {
		return nil, 0, kv.ErrNotFound
	}
	return v, f.cas, nil
}

func (f *flat) Set(key string, value []byte, _ uint32) error {
	f.values[key] = append(f.values[key][:0], value...)
	return nil
}

// The table itself does not allocate over a store either.
func TestSharedDoesNotAllocate(t *testing.T) {
	table := account.NewShared(account.Options{Accounts: 100}, &flat{values: map[string][]byte{}, cas: 1}, "quota")
	template, d, used, now := three(), three(), []int64{1, 321, 1}, begin
	admitted := true
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		copy(d, template)
		now = now.Add(100 * time.Millisecond)
		admitted = table.Take(now, d, hold).Outcome == account.Admitted && admitted
		_ = table.Standing(now, &d[1])
		_ = table.Settle(now, d, used)
	}))
	require.True(t, admitted)
}

func benchmark(b *testing.B, table account.Table) {
	template, d, used, now := three(), three(), []int64{1, 321, 1}, begin
	b.ReportAllocs()
	for b.Loop() {
		copy(d, template)
		now = now.Add(time.Millisecond)
		table.Take(now, d, hold)
		_ = table.Settle(now, d, used)
	}
}

func BenchmarkMemory(b *testing.B) {
	benchmark(b, account.NewMemory(account.Options{Accounts: 100}, new(sync.Mutex)))
}

func BenchmarkShared(b *testing.B) {
	benchmark(b, account.NewShared(account.Options{Accounts: 100}, mem.NewStore(), "quota"))
}

func BenchmarkMemoryParallel(b *testing.B) {
	table := account.NewMemory(account.Options{Accounts: 100}, new(sync.Mutex))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		template, d, used := three(), three(), []int64{1, 321, 1}
		for pb.Next() {
			copy(d, template)
			table.Take(begin, d, hold)
			_ = table.Settle(begin, d, used)
		}
	})
}
