package figures

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out", "envoy.jsonl")
	f, err := Create(path)
	require.NoError(t, err)
	f.Line("chat-4k-c1", "none", "p50_us", 150.4, "us")
	f.Line("chat-4k-c1", "wasm", "p50_us", 2612, "us")
	f.Line("chat-4k-c1", "wasm", "rps", 0.125, "1/s")
	require.NoError(t, f.Close())

	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, `{"bench":"envoy","case":"chat-4k-c1","mode":"none","metric":"p50_us","value":150.4,"unit":"us"}
{"bench":"envoy","case":"chat-4k-c1","mode":"wasm","metric":"p50_us","value":2612,"unit":"us"}
{"bench":"envoy","case":"chat-4k-c1","mode":"wasm","metric":"rps","value":0.125,"unit":"1/s"}
`, string(text))

	var table strings.Builder
	f.Table(&table)
	machine, rows, _ := strings.Cut(table.String(), "\n\n")
	require.Equal(t, f.machine, machine)
	require.Contains(t, machine, runtime.Version())
	require.Equal(t, `| case | mode | p50_us | rps, 1/s |
| --- | --- | ---: | ---: |
| chat-4k-c1 | none | 150 |  |
|  | wasm | 2612 | 0.125 |
`, rows)
}

func TestFileThatCannotBeWritten(t *testing.T) {
	f, err := Create(filepath.Join(t.TempDir(), "go.jsonl"))
	require.NoError(t, err)
	require.NoError(t, f.file.Close())
	f.Line("scan", "native", "time", 1, "ns")
	require.Error(t, f.Close())
}

func TestNumber(t *testing.T) {
	for value, wants := range map[float64]string{0: "0", 0.12345: "0.123", 1.005: "1.00", 25.16: "25.2", 130.6: "131", -12.34: "-12.3", 123456: "123456"} {
		require.Equal(t, wants, Number(value))
	}
}
