package main

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// changesOf returns a function body's mutants, without the excluded kinds.
func changesOf(t *testing.T, kind, body string) (changes []string) {
	t.Helper()
	const before, after = "package p\n\nfunc (x *T[K]) f() {\n", "\n}\n"
	found, err := mutants("./p", "p/p.go", []byte(before+body+after))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range found {
		if m.Kind != kind {
			continue
		}
		if m.Func != "T.f" {
			t.Errorf("%s is in %q", m.block(), m.Func)
		}
		text := strings.TrimSuffix(strings.TrimPrefix(string(m.text()), before), after)
		if text == body {
			t.Errorf("%q is no change", body)
		}
		changes = append(changes, text)
	}
	return changes
}

func TestMutants(t *testing.T) {
	for _, c := range []struct {
		kind, body string
		want       []string
	}{
		{"operator", "a = b == c", []string{"a = b != c"}},
		{"operator", "a = b < c", []string{"a = b <= c", "a = b >= c"}},
		{"operator", "a = b && c || d", []string{"a = b || c || d", "a = b && c && d"}},
		{"operator", "a = b + c*d", []string{"a = b - c*d", "a = b + c/d"}},
		{"operator", `a = b + "text" + c`, nil},
		{"operator", "a = b &^ c << d", []string{"a = b & c << d", "a = b &^ c >> d"}},
		{"operator", "a += 1", []string{"a -= 1"}},
		{"operator", "a++", []string{"a--"}},
		{"operator", "a := *b", nil},
		{"statement", "a = b", []string{""}},
		{"statement", "a := b", nil},
		{"statement", "f(a)\ndefer g()\na--", []string{"\ndefer g()\na--", "f(a)\n\na--", "f(a)\ndefer g()\n"}},
		{"statement", "select {\ncase a = <-b:\nc()\n}", []string{"select {\ncase a = <-b:\n\n}"}},
		{"condition", "if a() {\n}", []string{"if !(a()) {\n}"}},
		{"condition", "if a == b {\n}", nil},
		{"condition", "if !a {\n}", []string{"if a {\n}"}},
		{"condition", "if a && b {\n}", []string{"if !(a && b) {\n}"}},
		{"condition", "for a() {\n}", []string{"for !(a()) {\n}"}},
		{"early return", "if a == b {\nreturn\n}", []string{"if false && (a == b) {\nreturn\n}"}},
		{"early return", "for {\nif a := b(); a {\ncontinue\n}\n}", []string{"for {\nif a := b(); false && (a) {\ncontinue\n}\n}"}},
		{"early return", "if a {\nb()\n}", nil},
		{"else", "if a {\nb()\n} else {\nc()\n}", []string{"if a {\nb()\n} else {}"}},
		{"constant", "a = 7", []string{"a = 8", "a = 6"}},
		{"constant", "a = 0", []string{"a = 1"}},
		{"constant", "a = 0x10", []string{"a = 17", "a = 15"}},
		{"constant", "a = 1.5", nil},
		{"constant", "return true", []string{"return false"}},
	} {
		if got := changesOf(t, c.kind, c.body); !slices.Equal(got, c.want) {
			t.Errorf("%s of %q:\n%q\nwant\n%q", c.kind, c.body, got, c.want)
		}
	}
}

// Every change of this program is valid Go, and no change is made twice.
func TestMutantsAreGo(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	all := 0
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found, err := mutants(".", file, source)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, m := range found {
			text := string(m.text())
			if _, err := parser.ParseFile(token.NewFileSet(), file, text, 0); err != nil {
				t.Errorf("%v:\n%s", err, m.block())
			}
			if seen[text] {
				t.Errorf("twice:\n%s", m.block())
			}
			seen[text] = true
			all++
		}
	}
	if all < 200 {
		t.Errorf("%d mutants of %d files", all, len(files))
	}
	if _, err := mutants(".", "x.go", []byte("no Go")); err == nil {
		t.Error("what is no Go has no mutants")
	}
}

func TestBlock(t *testing.T) {
	found, err := mutants("./p", "p/p.go", []byte("package p\n\nvar a = 1\n\nfunc f() {\n\tif a == 2 {\n\t\treturn\n\t}\n\tg(\n\t\ta,\n\t)\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range found {
		got = append(got, m.block())
	}
	want := []string{
		"p/p.go\n- var a = 1\n+ var a = 2\n",
		"p/p.go\n- var a = 1\n+ var a = 0\n",
		"p/p.go f\n- if a == 2 {\n+ if false && (a == 2) {\n",
		"p/p.go f\n- if a == 2 {\n+ if a != 2 {\n",
		"p/p.go f\n- if a == 2 {\n+ if a == 3 {\n",
		"p/p.go f\n- if a == 2 {\n+ if a == 1 {\n",
		"p/p.go f\n- g(\n- a,\n- )\n",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant\n%q", got, want)
	}
}
