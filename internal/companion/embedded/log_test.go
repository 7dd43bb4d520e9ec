package embedded

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

func TestLogger(t *testing.T) {
	type line struct {
		level filter.Level
		text  string
	}
	var lines []line
	log := logger(func(l filter.Level, text string) { lines = append(lines, line{l, text}) })
	log.Info("every endpoint was tried")
	log.With("pool", "llama").Warn("scrape failed", "reason", "a b", "level", 3)
	log.WithGroup("g").Error("no", "time", 1)
	log.Debug("much")
	require.Equal(t, []line{
		{filter.Info, "companion: every endpoint was tried"},
		{filter.Warn, `companion: scrape failed pool=llama reason="a b"`},
		{filter.Error, "companion: no g.time=1"},
		{filter.Debug, "companion: much"},
	}, lines)
	require.Equal(t, filter.Error, level(slog.LevelError+4))
}
