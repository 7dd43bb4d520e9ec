package module

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"
	"github.com/stretchr/testify/require"
)

// Nothing that Envoy or Go's runtime calls may let a panic out, which would end the Envoy process: every method that
// the SDK calls, every function that is exported to C, every goroutine, and every function that runs later has a barrier.
func TestEveryEntryHasABarrier(t *testing.T) {
	callbacks := map[string]bool{}
	for _, of := range []reflect.Type{
		reflect.TypeFor[shared.HttpFilter](), reflect.TypeFor[shared.HttpFilterFactory](), reflect.TypeFor[shared.HttpFilterConfigFactory](),
		reflect.TypeFor[shared.HttpCalloutCallback](), reflect.TypeFor[shared.HttpStreamCallback](), reflect.TypeFor[shared.DownstreamWatermarkCallbacks](),
	} {
		for i := range of.NumMethod() {
			callbacks[of.Method(i).Name] = true
		}
	}
	var sources []string
	for _, dir := range []string{".", "../../../internal/native"} {
		require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if e != nil && e.IsDir() && e.Name() == "testdata" {
				return fs.SkipDir
			}
			if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				sources = append(sources, path)
			}
			return err
		}))
	}
	found := entriesWithout(t, callbacks, sources...)
	require.Empty(t, found)
}

// The check itself finds what it should.
func TestEntriesWithoutABarrier(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.go")
	require.NoError(t, os.WriteFile(file, []byte(`package x
func (s *x) OnRequestBody() { s.work() }
func (s *x) OnDestroy() { defer s.caught(); s.work() }
func (s *x) work() {
	go s.work()
	go func() { s.work() }()
	go func() { defer s.leave(); s.work() }()
	go s.OnDestroy()
	time.AfterFunc(1, s.work)
	s.main.Schedule(func() { defer func() { recover() }(); s.work() })
	runtime.AddCleanup(s, func(int) {}, 1)
	all.Go(s.work)
}
//export envoy_dynamic_module_on_x
func envoy_dynamic_module_on_x() {}
func envoy_dynamic_module_on_y() {}
`), 0o600))
	var lines []string
	for _, f := range entriesWithout(t, map[string]bool{"OnRequestBody": true, "OnDestroy": true}, file) {
		lines = append(lines, strings.Split(f, ":")[1])
	}
	require.Equal(t, []string{"2", "5", "6", "9", "11", "12", "15"}, lines)
}

// entries finds what runs without anybody of this code around it.
type entries struct {
	files     *token.FileSet
	functions map[string]*ast.FuncDecl // by name; methods, too
	found     []string
}

func entriesWithout(t *testing.T, callbacks map[string]bool, sources ...string) []string {
	t.Helper()
	e := &entries{files: token.NewFileSet(), functions: map[string]*ast.FuncDecl{}}
	var all []*ast.FuncDecl
	for _, source := range sources {
		file, err := parser.ParseFile(e.files, source, nil, parser.ParseComments)
		require.NoError(t, err)
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
				all = append(all, f)
				e.functions[f.Name.Name] = f
			}
		}
	}
	for _, f := range all {
		if f.Recv != nil && callbacks[f.Name.Name] || strings.Contains(comments(f.Doc), "//export ") {
			e.need(f, f.Body)
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				e.runs(n, n.Call.Fun)
			case *ast.CallExpr:
				if called, ok := n.Fun.(*ast.SelectorExpr); ok {
					switch called.Sel.Name {
					case "Schedule", "AfterFunc", "AddCleanup", "SetFinalizer", "Go":
						for _, a := range n.Args {
							e.runs(n, a)
						}
					}
				}
			}
			return true
		})
	}
	return e.found
}

func comments(g *ast.CommentGroup) (text string) {
	if g != nil {
		for _, c := range g.List {
			text += c.Text + "\n"
		}
	}
	return text
}

// runs checks a function that runs later, if that is what the expression is.
func (e *entries) runs(at ast.Node, x ast.Expr) {
	switch x := x.(type) {
	case *ast.FuncLit:
		e.need(at, x.Body)
	case *ast.SelectorExpr:
		if f := e.functions[x.Sel.Name]; f != nil {
			e.need(at, f.Body)
		}
	case *ast.Ident:
		if f := e.functions[x.Name]; f != nil {
			e.need(at, f.Body)
		}
	}
}

// need reports a body without a barrier.
func (e *entries) need(at ast.Node, body *ast.BlockStmt) {
	for _, statement := range body.List {
		if d, ok := statement.(*ast.DeferStmt); ok && isBarrier(d.Call.Fun) {
			return
		}
	}
	e.found = append(e.found, fmt.Sprintf("%s has no barrier", e.files.Position(at.Pos())))
}

func isBarrier(deferred ast.Expr) bool {
	switch d := deferred.(type) {
	case *ast.SelectorExpr:
		return barriers[d.Sel.Name]
	case *ast.Ident:
		return barriers[d.Name]
	case *ast.FuncLit:
		recovers := false
		ast.Inspect(d.Body, func(n ast.Node) bool {
			c, ok := n.(*ast.Ident)
			recovers = recovers || ok && c.Name == "recover"
			return true
		})
		return recovers
	}
	return false
}

// barriers recover: what they are is said where they are declared.
var barriers = map[string]bool{"leave": true, "caught": true, "Guard": true, "dropped": true, "survive": true}
