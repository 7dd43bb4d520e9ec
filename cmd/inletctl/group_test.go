package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A misspelt subcommand has done nothing, and the exit code says so.
func TestUnknownSubcommand(t *testing.T) {
	for line, want := range map[string]string{
		"qouta":                    `unknown command "qouta" for "inletctl"`,
		"quota key revoke k2":      `unknown command "key" for "inletctl quota"; did you mean "keys"?`,
		"quota keys revok demo":    `unknown command "revok" for "inletctl quota keys"; did you mean "revoke"?`,
		"quota products something": `unknown command "something" for "inletctl quota products"`,
	} {
		code, stdout, stderr := tool(t, strings.Fields(line)...)
		require.Equal(t, exitUsage, code, line)
		require.Empty(t, stdout, line)
		require.Contains(t, stderr, want)
	}
	for _, line := range []string{"", "quota", "quota keys", "quota keys --help", "help quota"} {
		code, stdout, _ := tool(t, strings.Fields(line)...)
		require.Equal(t, exitOK, code, line)
		require.Contains(t, stdout, "Usage:", line)
	}
}
