package relay

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDefaults(t *testing.T) {
	o := New(Options{}).opts
	require.NotZero(t, o.Source)
	require.NotNil(t, o.Now)
	require.Equal(t, []time.Duration{20 * time.Millisecond, 500 * time.Millisecond, time.Minute, 10 * time.Second, 1500 * time.Millisecond},
		[]time.Duration{o.Interval, o.Heartbeat, o.MaxWait, o.Lease, o.ProxyLease})
	require.EqualValues(t, 64<<20, o.Memory)
	require.EqualValues(t, 8<<20, o.NoteRate)

	o = New(Options{Source: 1, Interval: 2, Heartbeat: 3, MaxWait: 4, Lease: 5, ProxyLease: 6, Memory: 7, NoteRate: 8}).opts
	require.EqualValues(t, 1, o.Source)
	require.Equal(t, []time.Duration{2, 3, 4, 5, 6}, []time.Duration{o.Interval, o.Heartbeat, o.MaxWait, o.Lease, o.ProxyLease})
	require.EqualValues(t, 7, o.Memory)
	require.EqualValues(t, 8, o.NoteRate)
}
