package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
)

// verdict is the result of a mutant.
type verdict uint8

const (
	untested verdict = iota
	killed
	survived
	uncompiled
	equivalent
)

// mutant is one change of a file: the bytes from start to end are replaced.
type mutant struct {
	Package string // as in the group
	File    string // path below the module's root
	Func    string // the function, "Type.Method", or "" outside of functions
	Kind    string
	Line    int

	source     []byte
	start, end int
	with       string

	verdict verdict
}

// text is the changed file.
func (m *mutant) text() []byte {
	return slices.Concat(m.source[:m.start], []byte(m.with), m.source[m.end:])
}

// block shows the change: where it is, the lines that are replaced and those that replace them, without indentation.
func (m *mutant) block() string {
	from := strings.LastIndexByte(string(m.source[:m.start]), '\n') + 1
	to := len(m.source)
	if n := strings.IndexByte(string(m.source[m.end:]), '\n'); n >= 0 {
		to = m.end + n
	}
	var b strings.Builder
	fmt.Fprintln(&b, strings.TrimSpace(m.File+" "+m.Func))
	lines := func(sign, text string) {
		for line := range strings.SplitSeq(text, "\n") {
			if line = strings.TrimSpace(line); line != "" {
				fmt.Fprintf(&b, "%s %s\n", sign, line)
			}
		}
	}
	lines("-", string(m.source[from:to]))
	lines("+", string(m.source[from:m.start])+m.with+string(m.source[m.end:to]))
	return b.String()
}

// instead has the replacements of an operator in mutants.
var instead = map[token.Token][]token.Token{
	token.EQL: {token.NEQ}, token.NEQ: {token.EQL},
	token.LSS: {token.LEQ, token.GEQ}, token.LEQ: {token.LSS, token.GTR},
	token.GTR: {token.GEQ, token.LEQ}, token.GEQ: {token.GTR, token.LSS},
	token.LAND: {token.LOR}, token.LOR: {token.LAND},
	token.ADD: {token.SUB}, token.SUB: {token.ADD}, token.MUL: {token.QUO}, token.QUO: {token.MUL}, token.REM: {token.MUL},
	token.AND: {token.OR}, token.OR: {token.AND}, token.XOR: {token.AND}, token.AND_NOT: {token.AND},
	token.SHL: {token.SHR}, token.SHR: {token.SHL},
	token.ADD_ASSIGN: {token.SUB_ASSIGN}, token.SUB_ASSIGN: {token.ADD_ASSIGN},
	token.MUL_ASSIGN: {token.QUO_ASSIGN}, token.QUO_ASSIGN: {token.MUL_ASSIGN},
	token.AND_ASSIGN: {token.OR_ASSIGN}, token.OR_ASSIGN: {token.AND_ASSIGN},
	token.INC: {token.DEC}, token.DEC: {token.INC},
}

// mutants returns all changes of a file that this program knows, by place.
func mutants(pkg, file string, source []byte) ([]*mutant, error) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, file, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	f := &finder{set: set, pkg: pkg, file: file, source: source}
	for _, d := range tree.Decls {
		f.function = ""
		if fn, ok := d.(*ast.FuncDecl); ok {
			f.function = functionName(fn)
		}
		ast.Inspect(d, f.visit)
	}
	slices.SortStableFunc(f.found, func(a, b *mutant) int { return cmp.Compare(a.start, b.start) })
	return f.found, nil
}

// functionName is "Func" or "Type.Method".
func functionName(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	t := fn.Recv.List[0].Type
	for {
		switch of := t.(type) {
		case *ast.StarExpr:
			t = of.X
		case *ast.IndexExpr:
			t = of.X
		case *ast.IndexListExpr:
			t = of.X
		case *ast.Ident:
			return of.Name + "." + fn.Name.Name
		default:
			return fn.Name.Name
		}
	}
}

// finder collects the mutants of one file.
type finder struct {
	set       *token.FileSet
	pkg, file string
	source    []byte
	function  string
	found     []*mutant
}

// replace records a change of the source from one place to another.
func (f *finder) replace(kind string, from, to token.Pos, with string) {
	at := f.set.Position(from)
	f.found = append(f.found, &mutant{
		Package: f.pkg, File: f.file, Func: f.function, Kind: kind, Line: at.Line,
		source: f.source, start: at.Offset, end: f.set.Position(to).Offset, with: with,
	})
}

// wrap records a change that keeps an expression, in parentheses, behind a prefix.
func (f *finder) wrap(kind, prefix string, x ast.Expr) {
	text := string(f.source[f.set.Position(x.Pos()).Offset:f.set.Position(x.End()).Offset])
	f.replace(kind, x.Pos(), x.End(), prefix+"("+text+")")
}

func (f *finder) operator(op token.Token, at token.Pos) {
	for _, other := range instead[op] {
		f.replace("operator", at, at+token.Pos(len(op.String())), other.String())
	}
}

func (f *finder) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.ImportSpec, *ast.Field:
		return false
	case *ast.BinaryExpr:
		if n.Op != token.ADD || !isText(n.X) && !isText(n.Y) {
			f.operator(n.Op, n.OpPos)
		}
	case *ast.UnaryExpr:
		if n.Op == token.NOT {
			f.replace("condition", n.OpPos, n.OpPos+1, "")
		}
	case *ast.CommClause: // what it waits for cannot be left out
		for _, s := range n.Body {
			ast.Inspect(s, f.visit)
		}
		return false
	case *ast.IfStmt:
		f.branch(n)
	case *ast.ForStmt:
		if n.Cond != nil && !isComparison(n.Cond) {
			f.wrap("condition", "!", n.Cond)
		}
	case *ast.AssignStmt:
		f.operator(n.Tok, n.TokPos)
		if n.Tok != token.DEFINE {
			f.replace("statement", n.Pos(), n.End(), "")
		}
	case *ast.IncDecStmt:
		f.operator(n.Tok, n.TokPos)
		f.replace("statement", n.Pos(), n.End(), "")
	case *ast.ExprStmt:
		f.replace("statement", n.Pos(), n.End(), "")
	case *ast.DeferStmt:
		f.replace("statement", n.Pos(), n.End(), "")
	case *ast.BasicLit:
		f.number(n)
	case *ast.Ident:
		if other := map[string]string{"true": "false", "false": "true"}[n.Name]; other != "" {
			f.replace("constant", n.Pos(), n.End(), other)
		}
	}
	return true
}

// branch records the changes of an if statement: negated, its early return gone, its else gone.
func (f *finder) branch(n *ast.IfStmt) {
	if !isComparison(n.Cond) {
		f.wrap("condition", "!", n.Cond)
	}
	if last := len(n.Body.List) - 1; last >= 0 && n.Else == nil {
		switch n.Body.List[last].(type) {
		case *ast.ReturnStmt, *ast.BranchStmt:
			f.wrap("early return", "false && ", n.Cond)
		}
	}
	if n.Else != nil {
		f.replace("else", n.Else.Pos(), n.Else.End(), "{}")
	}
}

// number records an integer that is one more or one less.
func (f *finder) number(n *ast.BasicLit) {
	if n.Kind != token.INT {
		return
	}
	v, err := strconv.ParseUint(n.Value, 0, 63)
	if err != nil {
		return
	}
	f.replace("constant", n.Pos(), n.End(), strconv.FormatUint(v+1, 10))
	if v > 0 {
		f.replace("constant", n.Pos(), n.End(), strconv.FormatUint(v-1, 10))
	}
}

// isComparison reports whether the expression's own operator has a mutant that negates it.
func isComparison(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.BinaryExpr:
		return x.Op != token.LAND && x.Op != token.LOR
	case *ast.UnaryExpr:
		return x.Op == token.NOT
	}
	return false
}

// isText reports whether the expression is a text, as far as its form shows.
func isText(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.BasicLit:
		return x.Kind == token.STRING
	case *ast.BinaryExpr:
		return isText(x.X) || isText(x.Y)
	case *ast.ParenExpr:
		return isText(x.X)
	}
	return false
}
