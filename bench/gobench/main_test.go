package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/bench/figures"
)

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "go.jsonl")
	f, err := figures.Create(path)
	require.NoError(t, err)
	require.NoError(t, write(f, strings.NewReader(`goos: linux
pkg: github.com/inlet-proxy/inlet/shared/reading/sse
BenchmarkScan/events=8-2   	  100	       200 ns/op	 500.00 MB/s	       0 B/op	       0 allocs/op
BenchmarkScan/events=8-2   	  100	       100 ns/op	1000.00 MB/s	       0 B/op	       0 allocs/op
BenchmarkScan/events=8-2   	  100	       300 ns/op	 333.00 MB/s	       0 B/op	       0 allocs/op
PASS
ok  	github.com/inlet-proxy/inlet/shared/reading/sse	1.2s
pkg: github.com/inlet-proxy/inlet/filters
BenchmarkPick 	  100	      1500 ns/op	      16 B/op	       1 allocs/op
`)))
	require.NoError(t, f.Close())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, `{"bench":"go","case":"shared/reading/sse.Scan/events=8","mode":"native","metric":"ns_op","value":200,"unit":"ns"}
{"bench":"go","case":"shared/reading/sse.Scan/events=8","mode":"native","metric":"mb_s","value":500,"unit":"MB/s"}
{"bench":"go","case":"shared/reading/sse.Scan/events=8","mode":"native","metric":"allocs_op","value":0,"unit":""}
{"bench":"go","case":"shared/reading/sse.Scan/events=8","mode":"native","metric":"bytes_op","value":0,"unit":"B"}
{"bench":"go","case":"filters.Pick","mode":"native","metric":"ns_op","value":1500,"unit":"ns"}
{"bench":"go","case":"filters.Pick","mode":"native","metric":"allocs_op","value":1,"unit":""}
{"bench":"go","case":"filters.Pick","mode":"native","metric":"bytes_op","value":16,"unit":"B"}
`, string(text))
}
