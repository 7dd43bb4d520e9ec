package balancer

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRead(t *testing.T) {
	defaults := Config{Header: "x-gateway-destination-endpoint", Fallback: LeastRequest}
	for document, want := range map[string]Config{
		"": defaults, "{}": defaults,
		"header: x-llm-d-destination-endpoint": {"x-llm-d-destination-endpoint", LeastRequest},
		`{"fallback": "none"}`:                 {defaults.Header, None},
		"fallback: random":                     {defaults.Header, Random},
	} {
		c, err := Read([]byte(document))
		require.NoError(t, err, document)
		require.Equal(t, want, c, document)
	}
	for document, message := range map[string]string{
		"haeder: x":              `1:1: unknown key "haeder" (did you mean "header"?)`,
		"header: X Y":            `header: 1:9: "X Y" is not a header name`,
		"fallback: round-robin":  `fallback: 1:11: "round-robin" is not one of least-request, random, none`,
		"[]":                     "an object",
		"a: b: c":                "1:",
		"{}\n---\n{}":            "2:",
		"fallback: none\nx: {}":  `2:1: unknown key "x"`,
		"header: a\nheader: b\n": "duplicate key",
	} {
		_, err := Read([]byte(document))
		require.ErrorContains(t, err, message, document)
	}
}
