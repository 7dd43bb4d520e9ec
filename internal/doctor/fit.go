package doctor

import (
	"cmp"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

const (
	// sdkPath is the SDK for modules, and sdkVersion the one of sdkEnvoy.
	sdkPath    = "github.com/envoyproxy/envoy/source/extensions/dynamic_modules"
	sdkVersion = "v0.0.0-20260423231439-f1dd21b16c24"
	sdkEnvoy   = "1.38"

	// What to take instead of an Envoy that does not fit.
	envoysForModules = "take Envoy 1.38, 1.39 or 1.40"
	envoysForWasm    = "take a build of Envoy 1.36 to 1.40 with V8"

	// cure turns off a check of Go 1.26 that ends Envoy when it loads a module made with the SDK.
	cure = "cgocheck=0"
	// inV8 is the name of a JavaScript function, which every V8 has as text.
	inV8 = "WebAssembly.instantiate"
)

// kinds are the native builds of Inlet: what Envoy looks up in them, and how the functions are called that they look up in Envoy.
var kinds = []struct{ entry, wants, what string }{
	{"envoy_dynamic_module_on_program_init", "envoy_dynamic_module_callback_", "dynamic modules"},
	{"envoyGoFilterNewHttpPluginConfig", "envoyGo", "Go plugins (the golang filter of Envoy's contrib build)"},
}

// inPlugins are functions that Envoy looks up in wasm plugins: one of a version of the interface, and another.
const (
	pluginVersion = "proxy_abi_version_"
	pluginEntry   = "proxy_on_configure"
)

// Fit is what an examination has found of a build of Inlet and an Envoy.
type Fit []finding

type finding struct{ state, what, text string }

const (
	good    = "ok"
	wrong   = "WRONG"
	unknown = "UNKNOWN" // it could not be examined
)

func (f *Fit) add(state, what, format string, args ...any) {
	*f = append(*f, finding{state, what, fmt.Sprintf(format, args...)})
}

// Print prints a line for each thing that was examined, and returns whether all are right.
func (f Fit) Print(out io.Writer) bool {
	for _, l := range f {
		fmt.Fprintf(out, "%-8s %-10s %s\n", l.state, l.what, l.text)
	}
	return !slices.ContainsFunc(f, func(l finding) bool { return l.state != good })
}

// Err is all that is wrong, or nil.
func (f Fit) Err() error {
	var all []error
	for _, l := range f {
		if l.state == wrong {
			all = append(all, fmt.Errorf("%s: %s", l.what, l.text))
		}
	}
	return errors.Join(all...)
}

// examiner knows the machine on which a build is to run.
type examiner struct {
	platform string                                         // GOOS/GOARCH
	version  func(ctx context.Context, envoy string) string // of an Envoy, "" if it does not say
	glibc    func(ctx context.Context) string               // "" if there is none
	info     func(file string) (*debug.BuildInfo, error)    // what Go has written into a build
}

// Compare reads a build of Inlet, a native one or the wasm plugin, and the Envoy that is to load it, and tells whether they fit.
func Compare(ctx context.Context, build, envoy string) Fit {
	e := examiner{platform: runtime.GOOS + "/" + runtime.GOARCH, version: versionOf, glibc: glibcHere, info: buildinfo.ReadFile}
	return e.compare(ctx, build, envoy)
}

func (e *examiner) compare(ctx context.Context, build, envoy string) (f Fit) {
	module, err := readLibrary(build)
	if err != nil {
		f.add(wrong, "module", "%v", err)
	}
	host, err := readLibrary(envoy)
	switch {
	case errors.Is(err, errScript):
		f.add(unknown, "envoy", "%v", err)
	case err != nil:
		f.add(wrong, "envoy", "%v", err)
	case host.platform == wasm || kindOf(host) >= 0:
		f.add(wrong, "envoy", "%s is not a program", envoy)
		host = nil
	}
	version := ""
	if host != nil {
		version = e.program(ctx, &f, envoy, host)
	}
	switch {
	case module == nil:
	case module.platform != wasm:
		e.native(ctx, &f, build, module, host, version)
	case host != nil:
		plugin(&f, build, module, envoy, version)
	}
	return f
}

// program examines an Envoy, and returns its version if it says that here.
func (e *examiner) program(ctx context.Context, f *Fit, envoy string, host *library) (version string) {
	if host.platform != e.platform {
		f.add(good, "envoy", "%s: version unknown, %s", envoy, host.platform)
		return ""
	}
	if info, err := os.Stat(envoy); err == nil && info.Mode().Perm()&0o111 == 0 {
		f.add(wrong, "envoy", "%s is not executable: chmod +x %s", envoy, envoy)
		return ""
	}
	state := good
	if version = e.version(ctx, envoy); version == "" {
		state = unknown
	}
	f.add(state, "envoy", "%s: %s, %s", envoy, cmp.Or(version, "it does not say its version"), host.platform)
	return version
}

// native examines a native build, and whether Envoy can load it.
func (e *examiner) native(ctx context.Context, f *Fit, file string, module, host *library, version string) {
	kind := kindOf(module)
	if kind < 0 {
		f.add(wrong, "module", "%s is not a module for Envoy: it has no function %s", file, kinds[0].entry)
		return
	}
	needs := ""
	if module.glibc != "" {
		needs = ", needs glibc " + module.glibc + " or newer"
	}
	f.add(good, "module", "%s: %s%s", file, module.platform, needs)
	if here := e.glibc(ctx); module.platform == e.platform && here != "" && newer(module.glibc, here) {
		f.add(wrong, "glibc", "this machine has glibc %s, and the module needs %s: build it on this machine (make build), or take one of make release", here, module.glibc)
	}
	switch {
	case host == nil:
		return
	case module.platform != host.platform:
		f.add(wrong, "platform", "the module is for %s and Envoy for %s: build the module for %s, or take the one of make release", module.platform, host.platform, host.platform)
		return
	}
	symbols(f, kind, module, host, version)
	info, err := e.info(file)
	switch {
	case err != nil:
		f.add(wrong, "go", "%s does not say how it was built: %v", file, err)
	case kind == 0:
		unasked := good // of another platform
		if host.platform == e.platform {
			unasked = unknown
		}
		promise(f, info, version, unasked)
		cured(f, file, info.GoVersion)
	}
}

// kindOf is the index of a library's kind, or -1.
func kindOf(l *library) int {
	for i, k := range kinds {
		if l.has(k.entry) {
			return i
		}
	}
	return -1
}

// symbols looks up what the module calls, as the linker does when Envoy loads it.
func symbols(f *Fit, kind int, module, host *library, version string) {
	var missing []string
	wanted := 0
	for _, name := range module.wants {
		if strings.HasPrefix(name, kinds[kind].wants) {
			wanted++
			if !host.has(name) {
				missing = append(missing, name)
			}
		}
	}
	offers := slices.ContainsFunc(host.exports, func(name string) bool { return strings.HasPrefix(name, kinds[kind].wants) })
	switch {
	case len(missing) == 0:
		f.add(good, "symbols", "Envoy has all %d functions that the module calls", wanted)
	case !offers:
		f.add(wrong, "symbols", "this Envoy offers no functions for %s: it is too old, was built without them, or its symbols were removed; %s", kinds[kind].what, takes(kind))
	default:
		f.add(wrong, "symbols", "this Envoy (%s) lacks %d of the %d functions that the module calls, and cannot load it: %s; %s",
			cmp.Or(version, "unknown version"), len(missing), wanted, some(missing, 3), takes(kind))
	}
}

func takes(kind int) string {
	if kind == 0 {
		return envoysForModules
	}
	return "take an Envoy of the contrib build"
}

// some are the first names of a list.
func some(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// promise tells what Envoy's project promises for a module with this SDK in this Envoy. Before 1.38 Envoy took only modules with the
// SDK of exactly its own version. unasked is the state of that if no version is known.
func promise(f *Fit, info *debug.BuildInfo, version, unasked string) {
	i := slices.IndexFunc(info.Deps, func(m *debug.Module) bool { return m.Path == sdkPath })
	switch {
	case i < 0 || info.Deps[i].Version != sdkVersion:
		f.add(wrong, "sdk", "the module was not built with the SDK of Envoy %s, the only one that Inlet is tested with (%s)", sdkEnvoy, sdkVersion)
	case version == "":
		f.add(unasked, "sdk", "of Envoy %s, which works in 1.38, 1.39 and 1.40; this Envoy's version is unknown", sdkEnvoy)
	case !atLeast(version, 1, 38):
		f.add(wrong, "sdk", "Envoy %s loads only modules with the SDK of its own version, and this one has that of Envoy %s; %s", version, sdkEnvoy, envoysForModules)
	case !atLeast(version, 1, 40):
		f.add(good, "sdk", "of Envoy %s, which Envoy promises to support in 1.38 and 1.39", sdkEnvoy)
	case !atLeast(version, 1, 41):
		f.add(good, "sdk", "of Envoy %s: Envoy %s logs at start that this ABI version is deprecated, and loads it; Inlet is tested with 1.40", sdkEnvoy, version)
	default:
		f.add(good, "sdk", "of Envoy %s: Inlet is not tested with Envoy %s; run `make test ENVOY=<path>` with it before you use it", sdkEnvoy, version)
	}
}

// cured looks for the setting without which Go 1.26 ends Envoy.
func cured(f *Fit, file, goVersion string) {
	has, err := contains(file, cure)
	switch {
	case err != nil:
		f.add(wrong, "go", "%v", err)
	case !has && atLeast(goVersion, 1, 26):
		f.add(wrong, "go", "%s was built by %s without -ldflags '-X runtime.godebugDefault=%s': Go would end Envoy when it loads the configuration; build it with make build, or start Envoy with GODEBUG=%s",
			file, goVersion, cure, cure)
	default:
		f.add(good, "go", "built by %s", goVersion)
	}
}

// plugin examines whether an Envoy can run the wasm plugin.
func plugin(f *Fit, file string, module *library, envoy, version string) {
	if !module.has(pluginEntry) || !slices.ContainsFunc(module.exports, func(name string) bool { return strings.HasPrefix(name, pluginVersion) }) {
		f.add(wrong, "module", "%s is not a plugin for Envoy: it has no functions %s and %s*", file, pluginEntry, pluginVersion)
		return
	}
	has, err := contains(envoy, inV8)
	switch {
	case err != nil:
		f.add(wrong, "wasm", "%v", err)
	case !has:
		f.add(wrong, "wasm", "this Envoy (%s) was built without V8 and cannot run %s; %s, or the native module (ABI=module)", cmp.Or(version, "unknown version"), file, envoysForWasm)
	case version != "" && !atLeast(version, 1, 36):
		f.add(wrong, "wasm", "Envoy %s is older than Inlet is tested with; %s", version, envoysForWasm)
	default:
		f.add(good, "wasm", "this Envoy has V8 and can run %s", file)
	}
}

// versionOf asks an Envoy for its version.
func versionOf(ctx context.Context, envoy string) string {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	envoy, err := filepath.Abs(envoy) // else a name alone is looked up in PATH
	if err != nil {
		return ""
	}
	out, err := exec.CommandContext(ctx, envoy, "--version").Output()
	if err != nil {
		return ""
	}
	if m := envoyVersion.FindStringSubmatch(string(out)); m != nil {
		return m[1]
	}
	return ""
}

// glibcHere is the version of this machine's glibc.
func glibcHere(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "getconf", "GNU_LIBC_VERSION").Output()
	if err != nil {
		return "" // musl, or macOS
	}
	return strings.TrimSpace(strings.TrimPrefix(string(out), "glibc "))
}
