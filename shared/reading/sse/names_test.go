package sse

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A field's name is "data" and nothing more or less, wherever chunks are cut.
func TestNamesThatAreNearlyData(t *testing.T) {
	for _, name := range []string{"d", "da", "dat", "dataa", "ddata", "dadata", "datdata", "datadata", "adata", "dara", " data", "data ", "DATA", "d\xefata"} {
		everyCut(t, []byte(name+": x\n\n"))
		require.Empty(t, read(t, new(Scanner), []byte(name+": x\n\n")), name)
		require.Empty(t, read(t, new(Scanner), []byte(name+"\n\n")), name)
		require.Equal(t, []string{"y"}, read(t, new(Scanner), []byte(name+": x\ndata: y\n\n")), name)
	}
}
