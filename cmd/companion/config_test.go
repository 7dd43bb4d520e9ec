package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the .err files anew")

func TestConfig(t *testing.T) {
	c, err := readConfig("testdata/full.yaml")
	require.NoError(t, err)
	require.Equal(t, &Config{
		Listen:  "127.0.0.1:9002",
		Scrape:  ScrapeConfig{Interval: 100 * time.Millisecond, Timeout: time.Second, Path: "/metrics", Health: "/health"},
		Publish: 20 * time.Millisecond,
		Stale:   2 * time.Second,
		Pools: []PoolConfig{
			{Name: "llama", EDS: "envoy/static/eds/llama.yaml", Engine: "vllm"},
			{Name: "gemma", EDS: "envoy/static/eds/gemma.yaml", Engine: "vllm"},
		},
	}, c)
}

// What the full file says is what a file with pools alone means.
func TestDefaults(t *testing.T) {
	full, err := readConfig("testdata/full.yaml")
	require.NoError(t, err)
	short, err := parseConfig([]byte(`{"pools": [{"name": "llama", "eds": "envoy/static/eds/llama.yaml"}, {"name": "gemma", "eds": "envoy/static/eds/gemma.yaml"}]}`))
	require.NoError(t, err)
	require.Equal(t, full, short)
}

func TestAnIntervalThatFitsItsStale(t *testing.T) {
	c, err := parseConfig([]byte("{scrape: {interval: 15s}, stale: 1m, pools: [{name: a, eds: a.yaml}]}"))
	require.NoError(t, err)
	require.Equal(t, 15*time.Second, c.heartbeat())
}

// One bad file for each rule, with the exact text.
func TestBadConfig(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			doc, err := os.ReadFile(file)
			require.NoError(t, err)
			_, err = parseConfig(doc)
			require.Error(t, err)
			errFile := strings.TrimSuffix(file, ".yaml") + ".err"
			if *update {
				require.NoError(t, os.WriteFile(errFile, []byte(err.Error()+"\n"), 0o644))
			}
			want, readErr := os.ReadFile(errFile)
			require.NoError(t, readErr)
			require.Equal(t, string(want), err.Error()+"\n")
		})
	}
}

// README.md shows the file with every key, so it cannot rot.
func TestReadmeShowsTheFullFile(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	full, err := os.ReadFile("testdata/full.yaml")
	require.NoError(t, err)
	require.Contains(t, string(readme), "```yaml\n"+string(full)+"```\n")
}
