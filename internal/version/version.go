// Package version knows which version of Inlet a program is.
package version

import "runtime/debug"

// release is the version of a release, such as v0.1.0: set by the linker (-X), "" for other builds.
var release string

// String is the release; of other builds the module's version with its commit as Go knows it, or "unknown".
func String() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return of(info)
}

// of returns the version in build information.
func of(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, changed := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+dirty"
		}
	}
	if revision == "" {
		return "unknown"
	}
	return revision + changed
}
