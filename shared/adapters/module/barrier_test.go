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
	"slices"
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
	dirs := []string{".", "../../../internal/native"}
	for _, of := range []string{"barrier", "discover", "embedded", "http1", "replicas", "scrape"} { // what of the companion is in the module
		dirs = append(dirs, "../../../internal/companion/"+of)
	}
	for _, dir := range dirs {
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
	go barrier.Run(ctx, log, "", s.work)
	all.Go(func() { defer cancel(); err = barrier.Try(s.work) })
	all.Go(func() { s.work(); barrier.Run(ctx, log, "", s.work) })
	all.Go(func() { defer s.dropped(); s.work() })
	all.Go(func() { defer func() { func() { recover() }() }(); s.work() })
	go work()
}
func (s *x) caught() { if v := recover(); v != nil { s.log(v) } }
func (s *x) leave() { _ = recover() }
func (s *x) dropped() { _ = recover() }
func (s *y) dropped() {}
//export envoy_dynamic_module_on_x
func envoy_dynamic_module_on_x() {}
func envoy_dynamic_module_on_y() {}
`), 0o600))
	var lines []string
	for _, f := range entriesWithout(t, map[string]bool{"OnRequestBody": true, "OnDestroy": true}, file) {
		lines = append(lines, strings.Split(f, ":")[1])
	}
	require.Equal(t, []string{"2", "5", "6", "9", "11", "12", "15", "16", "17", "18", "25"}, lines)
}

// entries finds what runs without anybody of this code around it.
type entries struct {
	files     *token.FileSet
	functions map[string][]*ast.FuncDecl // by folder and name; methods, too, of all types
	found     []string
}

func entriesWithout(t *testing.T, callbacks map[string]bool, sources ...string) []string {
	t.Helper()
	e := &entries{files: token.NewFileSet(), functions: map[string][]*ast.FuncDecl{}}
	var all []*ast.FuncDecl
	for _, source := range sources {
		file, err := parser.ParseFile(e.files, source, nil, parser.ParseComments)
		require.NoError(t, err)
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
				all = append(all, f)
				e.functions[e.key(f.Name)] = append(e.functions[e.key(f.Name)], f)
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
				if !isTry(n.Call) && !e.runs(n, n.Call.Fun) {
					e.found = append(e.found, fmt.Sprintf("%s runs what is not in its package", e.files.Position(n.Pos())))
				}
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

// key is of a function of the package in which id stands.
func (e *entries) key(id *ast.Ident) string {
	return filepath.Dir(e.files.Position(id.Pos()).Filename) + " " + id.Name
}

// named are the functions that x may mean: those of its package with that name, whatever the type, since types are not read.
func (e *entries) named(x ast.Expr) []*ast.FuncDecl {
	switch x := x.(type) {
	case *ast.SelectorExpr:
		return e.functions[e.key(x.Sel)]
	case *ast.Ident:
		return e.functions[e.key(x)]
	}
	return nil
}

// runs checks a function that runs later, if that is what the expression is.
func (e *entries) runs(at ast.Node, x ast.Expr) bool {
	if f, ok := x.(*ast.FuncLit); ok {
		e.need(at, f.Body)
		return true
	}
	named := e.named(x)
	for _, f := range named {
		e.need(at, f.Body)
	}
	return len(named) > 0
}

// need reports a body without a barrier: none that it defers, and more to do than to call one.
func (e *entries) need(at ast.Node, body *ast.BlockStmt) {
	deferred := 0
	for _, statement := range body.List {
		if d, ok := statement.(*ast.DeferStmt); ok {
			if deferred++; e.isBarrier(d.Call.Fun) {
				return
			}
		}
	}
	if deferred == len(body.List)-1 {
		switch last := body.List[deferred].(type) {
		case *ast.ExprStmt:
			if isTry(last.X) {
				return
			}
		case *ast.AssignStmt:
			if len(last.Rhs) == 1 && isTry(last.Rhs[0]) {
				return
			}
		}
	}
	e.found = append(e.found, fmt.Sprintf("%s has no barrier", e.files.Position(at.Pos())))
}

// isTry reports whether the expression calls barrier.Run or barrier.Try, which run a function behind a barrier.
func isTry(x ast.Expr) bool {
	call, ok := x.(*ast.CallExpr)
	if !ok {
		return false
	}
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	in, ok := f.X.(*ast.Ident)
	return ok && in.Name == "barrier" && (f.Sel.Name == "Run" || f.Sel.Name == "Try")
}

// isBarrier reports whether a deferred function recovers.
func (e *entries) isBarrier(deferred ast.Expr) bool {
	if f, ok := deferred.(*ast.FuncLit); ok {
		return recovers(f.Body)
	}
	named := e.named(deferred)
	return len(named) > 0 && !slices.ContainsFunc(named, func(f *ast.FuncDecl) bool { return !recovers(f.Body) })
}

// recovers reports whether a body calls recover by itself: in a function within it, that has no effect.
func recovers(body *ast.BlockStmt) (found bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			f, ok := call.Fun.(*ast.Ident)
			found = found || ok && f.Name == "recover"
		}
		_, within := n.(*ast.FuncLit)
		return !within
	})
	return found
}
