package detect

import (
	"fmt"
	"strings"
	"testing"

	"github.com/inlet-proxy/inlet/internal/lines"
)

// BenchmarkFind is the time that all detectors take, as in `make bench-guardrail`: for generated lines, and for text in which nothing is found.
func BenchmarkFind(b *testing.B) {
	var all strings.Builder
	for seed := range uint64(3) {
		for _, l := range lines.Generate(20261130 + seed) {
			all.WriteString(l.Text + "\n")
		}
	}
	d, _ := New(Config{Kinds: 1<<Denied - 1})
	var s Scanner
	for _, c := range []struct{ name, text string }{{"data", all.String()}, {"nothing", lines.Prose}} {
		for _, size := range []int{4 << 10, 64 << 10} {
			text := []byte(strings.Repeat(c.text, size/len(c.text)+1)[:size])
			b.Run(fmt.Sprintf("%s/%dK", c.name, size>>10), func(b *testing.B) {
				b.SetBytes(int64(size))
				for b.Loop() {
					d.Find(&s, text)
				}
			})
		}
	}
}
