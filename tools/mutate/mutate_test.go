package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// module is a small module whose tests check some of it.
var module = map[string]string{
	"go.mod": "module m\n\ngo 1.26\n",
	"a/a.go": `package a

// Held is held by this package's test.
func Held(n int) int { return n + 1 }

// Used is held by the other package's test.
func Used(n int) int { return n * 2 }

// Free is held by none.
func Free(n int) bool { return n < 7 }

// Loop must end.
func Loop(n int) (sum int) {
	for i := 0; i < n; i++ {
		sum = sum | i
	}
	return sum
}
`,
	"a/a_test.go": "package a\n\nimport \"testing\"\n\nfunc Test(t *testing.T) {\n\tif Held(1) != 2 || Loop(3) != 3 {\n\t\tt.Fatal()\n\t}\n\tFree(1)\n}\n",
	"b/b_test.go": "package b\n\nimport (\n\t\"m/a\"\n\t\"testing\"\n)\n\nfunc Test(t *testing.T) {\n\tif a.Used(3) != 6 {\n\t\tt.Fatal()\n\t}\n}\n",
	"tools/mutate/equivalent.txt": `# A remark.

# Nobody looks.
a/a.go Free
- func Free(n int) bool { return n < 7 }
+ func Free(n int) bool { return n < 8 }
`,
}

func write(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

var small = group{"small", []string{"./a"}, [][]string{{"./b"}}}

func TestVerdicts(t *testing.T) {
	root := write(t, module)
	known, err := readEquivalent(filepath.Join(root, equivalentFile))
	if err != nil {
		t.Fatal(err)
	}
	drawn, err := draw(root, small, "", 1, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var all []*mutant
	source := []byte(module["a/a.go"])
	found, err := mutants("./a", "a/a.go", source)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range found { // one of each verdict, and more
		if slices.Contains([]string{
			"+ func Held(n int) int { return n - 1 }",
			"+ func Used(n int) int { return n / 2 }",
			"+ func Free(n int) bool { return n <= 7 }",
			"+ func Free(n int) bool { return n < 8 }",
			"+ for i := 0; i < n; i-- {",
		}, strings.Split(m.block(), "\n")[2]) {
			all = append(all, m)
		}
	}
	uncompilable := &mutant{Package: "./a", File: "a/a.go", source: source, start: len(source), end: len(source), with: "func Held() {}"}
	all = append(all, uncompilable)
	var progress bytes.Buffer
	work := &tester{root: root, scratch: t.TempDir(), progress: &progress, parallel: 2, known: known, patience: 3 * time.Second}
	if err := work.test(small, all); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range all {
		got = append(got, words[m.verdict])
	}
	want := []string{"killed", "killed", "SURVIVED", "equivalent", "killed", "does not compile"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if n := strings.Count(progress.String(), "\n"); n != len(all) {
		t.Errorf("%d lines of progress:\n%s", n, progress.String())
	}
	if after, _ := os.ReadFile(filepath.Join(root, "a/a.go")); string(after) != module["a/a.go"] {
		t.Error("the tree was touched")
	}
	places := map[int]bool{}
	for _, m := range drawn {
		if places[m.start] {
			t.Errorf("a place was drawn twice: %s", m.block())
		}
		places[m.start] = true
	}

	failing := map[string]string{"a/a_test.go": "package a\n\nimport \"testing\"\n\nfunc Test(t *testing.T) { t.Fatal(\"as before\") }\n"}
	for name, text := range module {
		if failing[name] == "" {
			failing[name] = text
		}
	}
	work = &tester{root: write(t, failing), scratch: t.TempDir(), progress: io.Discard, parallel: 1, patience: time.Minute}
	if err := work.test(small, all); err == nil || !strings.Contains(err.Error(), "as before") {
		t.Errorf("the tests fail as the code stands: %v", err)
	}
	stopped := &tester{root: root, scratch: t.TempDir(), progress: io.Discard, parallel: 1, patience: time.Minute, interrupted: make(chan struct{})}
	close(stopped.interrupted)
	if err := stopped.test(small, all); !errors.Is(err, errInterrupted) {
		t.Errorf("interrupted: %v", err)
	}
}

func TestTheDrawIsBySeed(t *testing.T) {
	root := write(t, module)
	blocks := func(g group, at string, seed uint64, count int) (blocks []string) {
		drawn, err := draw(root, g, at, seed, count)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range drawn {
			blocks = append(blocks, m.block())
		}
		return blocks
	}
	one := blocks(small, "", 1, 5)
	if len(one) != 5 || !slices.Equal(one, blocks(small, "", 1, 5)) {
		t.Error("the same seed, another draw")
	}
	if slices.Equal(one, blocks(small, "", 2, 5)) {
		t.Error("another seed, the same draw")
	}
	other := small
	other.name = "other"
	if slices.Equal(one, blocks(other, "", 1, 5)) {
		t.Error("another group, the same draw")
	}
	for _, b := range blocks(small, "a.go Loop", 1, 100) {
		if !strings.HasPrefix(b, "a/a.go Loop\n") {
			t.Errorf("not asked for: %s", b)
		}
	}
	if _, err := draw(root, group{"gone", []string{"./gone"}, nil}, "", 1, 1); err == nil {
		t.Error("a package that is not there")
	}
}

func TestEquivalents(t *testing.T) {
	root := write(t, module)
	known, err := readEquivalent(filepath.Join(root, equivalentFile))
	if err != nil || len(known) != 1 {
		t.Fatal(known, err)
	}
	if err := known.check(root); err != nil {
		t.Error(err)
	}
	for _, stale := range []string{"- func Free(n int) bool { return n < 6 }", "- func Free"} {
		known, err := parseEquivalent("# why\na/a.go Free\n" + stale + "\n+ x\n")
		if err != nil {
			t.Fatal(err)
		}
		if err := known.check(root); err == nil {
			t.Errorf("%s is no longer there", stale)
		}
	}
	gone, err := parseEquivalent("# why\nb/gone.go f\n- a\n+ b\n")
	if err != nil || gone.check(root) == nil {
		t.Error("a file that is gone")
	}
	if _, err := parseEquivalent("a/a.go Free\n- a\n+ b\n"); err == nil {
		t.Error("no reason was given")
	}
}

func TestJudgeOutput(t *testing.T) {
	failed := exec.Command("false").Run()
	for _, c := range []struct {
		err  error
		out  string
		want verdict
	}{
		{nil, "ok m 0.1s", survived},
		{failed, "--- FAIL: Test\nFAIL\tm", killed},
		{failed, "panic: test timed out after 3s\nFAIL\tm\t3.0s", killed},
		{failed, "m/a.go:1: undefined: x\nFAIL\tm [build failed]", uncompiled},
		{failed, "FAIL\tm [setup failed]", uncompiled},
	} {
		if got, _, err := judgeOutput(c.err, c.out); got != c.want || err != nil {
			t.Errorf("%q: %d, %v", c.out, got, err)
		}
	}
	for _, err := range []error{errors.New("no such program"), failed} {
		if _, _, got := judgeOutput(err, "go: out of memory"); got == nil {
			t.Errorf("%v is no verdict", err)
		}
	}
}

func TestReport(t *testing.T) {
	verdicts := map[verdict]int{killed: 23, survived: 2, uncompiled: 3, equivalent: 1}
	var drawn []*mutant
	for v, n := range verdicts {
		for range n {
			drawn = append(drawn, &mutant{File: "a.go", Func: "f", source: []byte("x"), verdict: v})
		}
	}
	var out bytes.Buffer
	r := report{seed: 7, least: 92}
	r.add(small, drawn, &out)
	if n := strings.Count(out.String(), "survived: a.go:0"); n != 2 {
		t.Errorf("%d survivors are printed", n)
	}
	if err := r.print(&out); err != nil {
		t.Error(err)
	}
	if line := fmt.Sprintf("%-10s %6d %9d %11d %9d %6.1f%%", "small", 29, 26, 1, 23, 92.0); !strings.Contains(out.String(), line) || !strings.Contains(out.String(), "seed 7") {
		t.Errorf("no %q in:\n%s", line, out.String())
	}
	r.least = 92.1
	if err := r.print(io.Discard); err == nil || !strings.Contains(err.Error(), "small") {
		t.Errorf("below: %v", err)
	}
	if (row{}).share() != 100 {
		t.Error("nothing to kill")
	}
}

func TestRun(t *testing.T) {
	root := write(t, map[string]string{"tools/mutate/equivalent.txt": ""})
	for _, args := range [][]string{
		{"-root", root, "-packages", "nobody"},
		{"-root", filepath.Join(root, "gone")},
		{"-root", root, "-packages", "kv"}, // no such packages there
		{"-nonsense"},
	} {
		if err := run(args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q", args)
		}
	}
}

// TestGroups compares the groups with the module: a package that is gone would no longer be measured, and nobody would
// notice.
func TestGroups(t *testing.T) {
	seen := map[string]bool{}
	for _, g := range groups {
		if seen[g.name] {
			t.Errorf("%s stands there twice", g.name)
		}
		seen[g.name] = true
		args := append([]string{"list"}, g.packages...)
		for _, more := range g.also {
			args = append(args, slices.DeleteFunc(slices.Clone(more), func(a string) bool { return strings.HasPrefix(a, "-") })...)
		}
		cmd := exec.Command("go", args...)
		cmd.Dir = "../.."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", g.name, err, out)
		}
		if got := g.runs(g.packages[0]); got[0][0] != g.packages[0] || len(got) < len(g.also)+1 {
			t.Errorf("%s: %q", g.name, got)
		}
	}
	all, err := choose("")
	if err != nil || len(all) != len(groups) {
		t.Error(err)
	}
	two, err := choose("kv, llm")
	if err != nil || two[0].name != "kv" || two[1].name != "llm" {
		t.Error(two, err)
	}
}

func TestTail(t *testing.T) {
	var kept tail
	for i := range 1000 {
		fmt.Fprintf(&kept, "%1000d", i)
	}
	if text := kept.String(); len(text) > 2*tailBytes || !strings.HasSuffix(text, "999") {
		t.Errorf("%d bytes are kept", len(text))
	}
}

func TestTheSlowestPackage(t *testing.T) {
	for out, want := range map[string]time.Duration{
		"": 0,
		"ok  \texample.org/a\t0.271s\n?   \texample.org/b\t[no test files]\nok  \texample.org/c\t12.050s\nok  \texample.org/d\t1.100s [no tests to run]\n": 12050 * time.Millisecond,
		"FAIL\texample.org/a\t3.271s\n": 0,
	} {
		if got := slowest(out); got != want {
			t.Errorf("%v, want %v, of %q", got, want, out)
		}
	}
}
