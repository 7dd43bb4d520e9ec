// Package shared_test checks the rules of who may import whom, and of what the core may use.
package shared_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/inlet-proxy/inlet/"

// pkg is a package as listed by `go list`, without its tests.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	// TestImports and XTestImports are those of its tests.
	TestImports  []string
	XTestImports []string
	Deps         []string // of the imports, too
}

// name is the import path below the module's.
func (p pkg) name() string { return strings.TrimPrefix(p.ImportPath, module) }

// inlet returns the packages of this module among the paths, by name.
func inlet(paths []string) []string {
	var own []string
	for _, p := range paths {
		if name, ok := strings.CutPrefix(p, module); ok {
			own = append(own, name)
		}
	}
	return own
}

// packages lists all packages of the module as they are built for wasm, the
// narrowest of the targets.
func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,GoFiles,Imports,TestImports,XTestImports,Deps", "./...")
	cmd.Dir = ".."
	cmd.Env = append(cmd.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	out, err := cmd.Output()
	require.NoError(t, err)
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			require.NotEmpty(t, all)
			return all
		}
		require.NoError(t, err)
		all = append(all, p)
	}
}

// layers list what each part of the core may import from this module. A part is a
// package and those below it.
var layers = []struct {
	part string
	may  []string
}{
	{"shared/reading/jsonscan", nil},
	{"shared/reading/sse", nil},
	{"shared/reading/formscan", nil},
	{"internal/coding", []string{"internal/coding"}},
	{"shared/state/kv", []string{"shared/state/kv"}},
	{"shared/state/account", []string{"shared/state/kv", "shared/reading/jsonscan"}},
	{"shared/contract/conf", []string{"shared/reading/jsonscan"}},
	{"shared/state/endpoint", []string{"shared/state/kv"}},
	{"shared/reading/llm", []string{"shared/reading/formscan", "shared/reading/jsonscan", "shared/reading/sse"}},
	{"shared/contract/filter", []string{"shared/contract/conf", "shared/state/endpoint", "shared/state/kv", "shared/reading/llm"}},
	{"internal/feed", []string{"shared/state/endpoint", "shared/contract/filter"}},
	{"internal/chain", []string{
		"internal/coding", "shared/contract/conf", "shared/state/endpoint", "shared/contract/filter", "shared/reading/formscan", "shared/reading/jsonscan", "shared/state/kv", "shared/reading/llm", "shared/reading/sse",
	}},
}

func under(name, part string) bool { return name == part || strings.HasPrefix(name, part+"/") }

func TestLayers(t *testing.T) {
	all := packages(t)
	for _, layer := range layers {
		found := false
		for _, p := range all {
			if !under(p.name(), layer.part) {
				continue
			}
			found = true
			for _, dep := range inlet(p.Imports) {
				require.True(t, slices.ContainsFunc(layer.may, func(part string) bool { return under(dep, part) }),
					"%s imports %s: %s may import of this module only %v", p.name(), dep, layer.part, layer.may)
			}
		}
		require.True(t, found, "no package %s: the list of layers is out of date", layer.part)
	}
}

// TestHouseIsOneWay: lower packages do not import higher ones, not even in tests.
func TestHouseIsOneWay(t *testing.T) {
	above := regexp.MustCompile(`^(filters|cmd|e2e|internal/(scenarios|companion|modelsim))(/.*)?$`)
	for _, p := range packages(t) {
		if !under(p.name(), "shared") && !under(p.name(), "internal/chain") && !under(p.name(), "internal/feed") && !under(p.name(), "internal/coding") {
			continue
		}
		for _, dep := range inlet(slices.Concat(p.Imports, p.TestImports, p.XTestImports)) {
			require.False(t, above.MatchString(dep), "%s imports %s", p.name(), dep)
		}
	}
}

// isFilter reports whether a package is a filter's policy: not the list of all filters, and not a main.
func isFilter(name string) bool {
	return under(name, "filters") && name != "filters" && path.Base(name) != "wasm"
}

func filterOf(name string) string { return strings.Split(name, "/")[1] }

func TestFiltersKnowNeitherEachOtherNorTheirHost(t *testing.T) {
	seen := 0
	for _, p := range packages(t) {
		if !isFilter(p.name()) {
			continue
		}
		seen++
		for _, dep := range inlet(p.Imports) {
			require.False(t, under(dep, "internal/chain") || under(dep, "shared/adapters") || under(dep, "shared/hosttest") || under(dep, "cmd"),
				"%s imports %s", p.name(), dep)
			if isFilter(dep) {
				require.Equal(t, filterOf(p.name()), filterOf(dep), "%s imports %s", p.name(), dep)
			}
		}
	}
	require.GreaterOrEqual(t, seen, 4)
}

// core reports whether a package must run in a VM without threads, sockets and clock.
func core(name string) bool {
	if isFilter(name) || name == "internal/chain" || name == "shared/state/kv" {
		return true
	}
	for _, part := range []string{"shared/contract/filter", "shared/reading/llm", "shared/reading/jsonscan", "shared/reading/formscan", "internal/coding", "shared/reading/sse", "shared/contract/conf", "shared/state/account", "shared/state/endpoint", "internal/feed"} {
		if under(name, part) {
			return true
		}
	}
	return false
}

// Imports that the core must not have.
var notImported = regexp.MustCompile(`^(net|os|sync|math/rand|encoding/json|unsafe)(/.*)?$`)

// Imports that the core must not have indirectly either: they make a wasm module big or slow to start.
var notLinked = regexp.MustCompile(`^(net|net/.*|encoding/json|cloud\.google\.com/.*|google\.golang\.org/.*|github\.com/(proxy-wasm|envoyproxy|tetratelabs)/.*)$`)

func TestCoreImports(t *testing.T) {
	seen := 0
	for _, p := range packages(t) {
		if !core(p.name()) {
			continue
		}
		seen++
		for _, dep := range p.Imports {
			require.False(t, notImported.MatchString(dep), "%s imports %s", p.name(), dep)
		}
		for _, dep := range p.Deps {
			require.False(t, notLinked.MatchString(dep), "%s depends on %s", p.name(), dep)
		}
	}
	require.GreaterOrEqual(t, seen, 12)
}

// TestCoreHasNoThreadAndNoClock reads the source of the core for go statements and calls of the clock.
func TestCoreHasNoThreadAndNoClock(t *testing.T) {
	for _, p := range packages(t) {
		if !core(p.name()) {
			continue
		}
		for _, file := range p.GoFiles {
			set := token.NewFileSet()
			tree, err := parser.ParseFile(set, filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			ast.Inspect(tree, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s: a go statement", set.Position(n.Pos()))
				case *ast.SelectorExpr:
					if of, ok := n.X.(*ast.Ident); ok && of.Name == "time" && clock[n.Sel.Name] {
						t.Errorf("%s: time.%s; the clock is in filter.Deps", set.Position(n.Pos()), n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

// clock are the clock functions of package time.
var clock = map[string]bool{
	"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true,
	"NewTimer": true, "NewTicker": true, "Tick": true,
}

// TestSDKsStayInTheAdapters: only the adapters, and tests, import Envoy's and proxy-wasm's SDKs.
func TestSDKsStayInTheAdapters(t *testing.T) {
	sdk := regexp.MustCompile(`^github\.com/(proxy-wasm/.*|envoyproxy/envoy/.*)$`)
	adapters := 0
	for _, p := range packages(t) {
		uses := slices.ContainsFunc(p.Imports, sdk.MatchString)
		if under(p.name(), "shared/adapters") {
			if uses {
				adapters++
			}
			continue
		}
		if under(p.name(), "shared/hosttest") || under(p.name(), "internal/scenarios") || under(p.name(), "e2e") {
			continue
		}
		if p.name() == "cmd/bundle-golang" {
			continue // links the adapter to Envoy, which ends test binaries
		}
		require.False(t, uses, "%s imports an SDK", p.name())
	}
	require.Positive(t, adapters)
}

// TestTokensStayInTheCompanion: the libraries that get access tokens are in no build for Envoy.
func TestTokensStayInTheCompanion(t *testing.T) {
	const tokens = "internal/companion/tokens"
	libraries := regexp.MustCompile(`^(golang\.org/x/oauth2|cloud\.google\.com/go/compute)(/.*)?$`)
	found := false
	for _, p := range packages(t) {
		uses := slices.ContainsFunc(p.Imports, libraries.MatchString)
		found = found || uses
		require.Equal(t, p.name() == tokens, uses, p.name())
		if slices.Contains(inlet(p.Imports), tokens) {
			require.Equal(t, "cmd/companion", p.name())
		}
	}
	require.True(t, found)
}

// TestKubernetesStaysInTheCompanion: its client is in no build for Envoy, and in no other package of the companion.
func TestKubernetesStaysInTheCompanion(t *testing.T) {
	const client = "internal/companion/kube"
	libraries := regexp.MustCompile(`^(k8s\.io|sigs\.k8s\.io)/`)
	found := false
	for _, p := range packages(t) {
		if under(p.name(), "e2e") {
			continue
		}
		uses := slices.ContainsFunc(p.Imports, libraries.MatchString)
		found = found || uses
		require.Equal(t, p.name() == client, uses, p.name())
		if slices.Contains(inlet(p.Imports), client) {
			require.Equal(t, "cmd/companion", p.name())
		}
	}
	require.True(t, found)
}

func TestNoCatchAllPackages(t *testing.T) {
	for _, p := range packages(t) {
		for _, part := range strings.Split(p.name(), "/") {
			require.NotContains(t, []string{"util", "utils", "common", "helper", "helpers", "misc"}, part, p.name())
		}
	}
}

// TestMainsAreSmall keeps policy and glue out of the bundles.
func TestMainsAreSmall(t *testing.T) {
	for _, p := range packages(t) {
		if !strings.HasPrefix(p.name(), "cmd/bundle-") {
			continue
		}
		for _, file := range p.GoFiles {
			set := token.NewFileSet()
			tree, err := parser.ParseFile(set, filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			require.LessOrEqual(t, set.Position(tree.End()).Line, 25, p.name()+": "+strconv.Quote(file))
		}
	}
}
