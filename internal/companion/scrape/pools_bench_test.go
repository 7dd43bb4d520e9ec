package scrape

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// silent never gets a connection.
func silent(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// The state of a thousand replicas, as each publication asks for it.
func BenchmarkPools1000(b *testing.B) {
	s, err := New(map[string]Plan{"llama": {Engine: "vllm"}}, Options{Interval: time.Hour, Timeout: time.Hour, Dial: silent})
	require.NoError(b, err)
	defer s.Close()
	var list []Target
	for i := range 1000 {
		list = append(list, Target{Address: fmt.Sprintf("10.0.%d.%d:8000", i/250, i%250), Usable: true})
	}
	s.SetTargets("llama", list)
	time.Sleep(firstWithin) // until all pollers wait for their connections
	b.ReportAllocs()
	began := cpuTime(b)
	for b.Loop() {
		s.Pools(time.Now())
	}
	b.ReportMetric(float64((cpuTime(b)-began).Microseconds())/float64(b.N), "cpu-µs/op")
}
