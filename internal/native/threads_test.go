package native

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestThreads(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		env  map[string]string
		now  int
		want int
	}{
		{"no --concurrency", []string{"envoy", "-c", "x.yaml"}, nil, 8, 8},
		{"workers and the main thread", []string{"envoy", "--concurrency", "2"}, nil, 8, 3},
		{"with =", []string{"envoy", "--concurrency=1", "-c", "x"}, nil, 8, 2},
		{"never more than before", []string{"envoy", "--concurrency", "64"}, nil, 8, 8},
		{"cut off", []string{"envoy", "--concurrency"}, nil, 8, 8},
		{"not a number", []string{"envoy", "--concurrency", "x"}, nil, 8, 8},
		{"overridden", []string{"envoy", "--concurrency", "2"}, map[string]string{"INLET_GOMAXPROCS": "16"}, 8, 16},
		{"overridden with the least", []string{"envoy", "--concurrency", "2"}, map[string]string{"INLET_GOMAXPROCS": "1"}, 8, 1},
		{"overridden with none", []string{"envoy", "--concurrency", "2"}, map[string]string{"INLET_GOMAXPROCS": "0"}, 8, 3},
		{"one worker", []string{"envoy", "-c", "x", "--concurrency", "1"}, nil, 8, 2},
		{"no worker", []string{"envoy", "--concurrency", "0"}, nil, 8, 8},
		{"overridden with nonsense", []string{"envoy", "--concurrency", "2"}, map[string]string{"INLET_GOMAXPROCS": "-1"}, 8, 3},
		{"GOMAXPROCS", []string{"envoy", "--concurrency", "2"}, map[string]string{"GOMAXPROCS": "8"}, 8, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, threads(c.args, func(k string) string { return c.env[k] }, c.now))
		})
	}
}
