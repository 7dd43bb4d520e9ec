package sim_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/modelsim/sim"
)

// BenchmarkChat measures the replica as the upstream of benchmarks: no delays, keep-alive connections, client and
// server in one process (so the client's half is in the figure too).
func BenchmarkChat(b *testing.B) {
	for _, size := range []int{1 << 10, 4 << 10, 64 << 10, 1 << 20} {
		for _, stream := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dKiB/stream=%t", size>>10, stream), func(b *testing.B) {
				server := sim.New(sim.Config{KVBlocks: 200000})
				require.NoError(b, server.Start("127.0.0.1:0"))
				defer server.Close()
				body := []byte(fmt.Sprintf(`{"model":"m","stream":%t,"messages":[{"role":"user","content":"%s"}]}`, stream, strings.Repeat("some words ", size/11)))
				client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						res, err := client.Post(server.URL()+"/v1/chat/completions", "application/json", bytes.NewReader(body))
						if err != nil {
							b.Error(err)
							return
						}
						n, err := io.Copy(io.Discard, res.Body)
						res.Body.Close()
						if err != nil || n == 0 || res.StatusCode != http.StatusOK {
							b.Errorf("status %d, %d bytes, %v", res.StatusCode, n, err)
							return
						}
					}
				})
			})
		}
	}
}
