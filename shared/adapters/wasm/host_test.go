package wasm

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A list as Envoy writes it, and what else may stand there, is read without harm.
func TestAppendAddresses(t *testing.T) {
	list := "\x02\x00\x00\x00" + "\x0b\x00\x00\x00" + "\x00\x00\x00\x00" + "\x08\x00\x00\x00" + "\x00\x00\x00\x00" +
		"10.0.0.1:80\x00\x00" + "[::1]:80\x00\x00"
	for value, want := range map[string][]string{
		list:                       {"10.0.0.1:80", "[::1]:80"},
		list[:len(list)-1]:         {"10.0.0.1:80"},
		"\x00\x00\x00\x00":         nil,
		"\xff\xff\xff\x00":         nil,
		"":                         nil,
		"10.0.0.1:80":              {"10.0.0.1:80"},
		" 10.0.0.1:80 ,,[::1]:80 ": {"10.0.0.1:80", "[::1]:80"},
	} {
		require.Equal(t, want, appendAddresses(nil, []byte(value)), "%q", value)
	}
}

func FuzzAppendAddresses(f *testing.F) {
	f.Add([]byte("10.0.0.1:80"))
	f.Add([]byte("\x01\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(_ *testing.T, value []byte) { appendAddresses(nil, value) })
}
