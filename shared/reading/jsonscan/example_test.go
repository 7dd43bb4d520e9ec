package jsonscan_test

import (
	"fmt"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// finder takes the string "model" of the outermost object, and skips all else.
type finder struct {
	scanner jsonscan.Scanner
	model   []byte
}

func (f *finder) Key(name []byte) {
	if string(name) != "model" {
		f.scanner.Skip() // checked, and not reported
	}
}

func (f *finder) Open(bool) {
	if f.scanner.Depth() > 1 {
		f.scanner.Skip() // "model" is an object or an array
	}
}

func (f *finder) Text(piece []byte) { f.model = append(f.model, piece...) }
func (f *finder) TextEnd()          {}
func (f *finder) Scalar([]byte)     {}
func (f *finder) Close(bool)        {}

// A body arrives in chunks that cut it anywhere.
func Example() {
	var f finder
	f.scanner.Reset(&f, jsonscan.Limits{})
	for _, chunk := range []string{`{"messages":[{"model":"no"}],"mod`, `el":"lla`, `m\u0061"}`} {
		if err := f.scanner.Feed([]byte(chunk)); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(f.scanner.End())
	fmt.Printf("%s\n", f.model)
	// Output:
	// <nil>
	// llama
}
