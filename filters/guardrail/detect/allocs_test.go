//go:build !race

// Package regexp keeps its memory in a sync.Pool, which forgets at random under the race detector.

package detect

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAllocatesNothing(t *testing.T) {
	d := everything(t)
	var s Scanner
	text := []byte(strings.Repeat(strings.Join(negatives, "\n")+"\n", 4))
	require.Empty(t, d.Find(&s, text))
	require.Zero(t, testing.AllocsPerRun(10, func() { d.Find(&s, text) }))
	require.Zero(t, testing.AllocsPerRun(10, func() { d.Scan(&s, text[:100], text[100:], false) }))
}
