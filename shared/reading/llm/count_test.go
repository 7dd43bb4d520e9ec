package llm

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCount(t *testing.T) {
	for text, want := range map[string]int{
		"0": 0, "1": 1, "128": 128, "2147483646": math.MaxInt32 - 1, "2147483647": math.MaxInt32, "2147483648": math.MaxInt32,
		"99999999999": math.MaxInt32, "1e3": 1000, "1E3": 1000, "100.0": 100, "0.5": 0, "1.9": 1, "1e0": 1, "1.0": 1,
		"2147483646.0": math.MaxInt32 - 1, "2147483647.0": math.MaxInt32, "2147483648.0": math.MaxInt32, "2.5e9": math.MaxInt32,
		"1e11": math.MaxInt32, "1e99": math.MaxInt32, "1e999": math.MaxInt32,
		"-0": 0, "-1": 0, "-1e11": 0, "-1e999": 0, "true": 0, "null": 0, "": 0, "/": 0, ":": 0,
	} {
		require.Equal(t, want, count([]byte(text)), text)
	}
}
