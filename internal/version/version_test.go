package version

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOf(t *testing.T) {
	setting := func(key, value string) debug.BuildSetting { return debug.BuildSetting{Key: key, Value: value} }
	revision := setting("vcs.revision", "0bfd294aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	for want, info := range map[string]debug.BuildInfo{
		"v1.2.3":             {Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{revision}},
		"0bfd294aaaaa":       {Main: debug.Module{Version: "(devel)"}, Settings: []debug.BuildSetting{revision, setting("vcs.modified", "false")}},
		"0bfd294aaaaa+dirty": {Settings: []debug.BuildSetting{revision, setting("vcs.modified", "true")}},
		"0bf":                {Settings: []debug.BuildSetting{setting("vcs.revision", "0bf")}},
		"unknown":            {Main: debug.Module{Version: "(devel)"}},
	} {
		require.Equal(t, want, of(&info))
	}
}

func TestReleaseWins(t *testing.T) {
	require.NotEmpty(t, String())
	release = "v9.9.9"
	defer func() { release = "" }()
	require.Equal(t, "v9.9.9", String())
}
