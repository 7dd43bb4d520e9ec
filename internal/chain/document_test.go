package chain_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// made makes a chain of one filter "w" from a document.
func made(t *testing.T, doc []byte) error {
	deps := newRig(t, "").chain.Deps()
	_, err := chain.New(doc, []filter.Factory{
		{Name: "w", New: func(*conf.Object, *filter.Deps) filter.Filter { return struct{ filter.Base }{} }},
	}, deps)
	return err
}

// A configuration that is no string reaches a wasm plugin as the bytes of its message.
func TestDocumentAsMessage(t *testing.T) {
	wire := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		require.NoError(t, err)
		return b
	}
	tree := func(members map[string]any) *structpb.Struct {
		s, err := structpb.NewStruct(members)
		require.NoError(t, err)
		return s
	}
	document := tree(map[string]any{"filters": []any{map[string]any{"w": map[string]any{}}}})
	wrapped, err := anypb.New(document)
	require.NoError(t, err)
	for name, doc := range map[string][]byte{
		"Struct":              wire(document),
		"Struct of much":      wire(tree(map[string]any{"filters": strings.Repeat("long ", 1000), "limits": map[string]any{"body": 1e6, "x": true, "y": nil}})),
		"a message in an Any": wire(wrapped),
		"Value":               wire(structpb.NewStructValue(document)),
		"a string in a StringValue that is wrapped twice": wire(wrapperspb.String(strings.Repeat("filters: [w: {}] # ", 20) + "\x01")),
		"a FloatValue":  wire(wrapperspb.Float(1.5)),
		"a DoubleValue": wire(wrapperspb.Double(1.5)),
		"an Int64Value": wire(wrapperspb.Int64(1 << 40)),
	} {
		t.Run(name, func(t *testing.T) {
			err := made(t, doc)
			var mistakes conf.Errors
			require.ErrorAs(t, err, &mistakes)
			require.Len(t, mistakes, 1)
			require.Contains(t, err.Error(), "give it as a StringValue")
			require.NotContains(t, err.Error(), "malformed")
		})
	}
}

// Documents are told apart by their text.
func TestDocumentsAreToldApart(t *testing.T) {
	one, same, other := newRig(t, ""), newRig(t, ""), newRig(t, "controlHeaders: trust")
	require.Equal(t, one.chain.ID(), same.chain.ID())
	require.NotEqual(t, one.chain.ID(), other.chain.ID())
}

// Text is read as text, whatever wrote it.
func TestDocumentAsText(t *testing.T) {
	for name, doc := range map[string]string{
		"YAML":                      "filters:\n  - w: {}\n",
		"CRLF":                      "filters:\r\n  - w: {}\r\n",
		"tabs between":              "filters:\t[w: {}]\n",
		"a byte order mark":         "\ufefffilters: [w: {}]\n",
		"JSON":                      `{"filters":[{"w":{}}]}`,
		"JSON with a mark and CRLF": "\ufeff{\r\n\"filters\":[{\"w\":{}}]\r\n}",
		"JSON that escapes an emoji, with a mark":          "\ufeff" + `{"filters":[{"w":{}}],"passThrough":["/\ud83d\ude42"]}`,
		"what has the form of a message but for its bytes": "\n " + "filters: [w: {}] # " + strings.Repeat("x", 13),
	} {
		require.NoError(t, made(t, []byte(doc)), name)
	}
	for name, c := range map[string]struct{ doc, want string }{
		"nothing":           {"", "the document is empty"},
		"blanks":            {" \r\n", "the document is empty"},
		"a mark alone":      {"\ufeff", "the document is empty"},
		"a stray character": {"filters: [w: {}] # \x1b[0m", "control characters are not allowed"},
		"a list":            {"- w: {}", "want an object"},
		"half a message":    {"\x10\x01\n", "control characters are not allowed"},
		"less than it says": {"\x10\x01\n\x05abc", "control characters are not allowed"},
		"an endless length": {"\x10\x01\n\u007f\u007f", "control characters are not allowed"},
		"no field's number": {"\x05abcd", "control characters are not allowed"},
		"half a double":     {"\x10\x01\tabc", "control characters are not allowed"},
		"half a float":      {"\x10\x01\x15ab", "control characters are not allowed"},
		"a group":           {"\x10\x01\x13", "control characters are not allowed"},
		"a number too long": {"\x10\x01\x10" + strings.Repeat("\xff", 11), "control characters are not allowed"},
		"half a number":     {"\x10\x01\x10\x80", "control characters are not allowed"},
	} {
		err := made(t, []byte(c.doc))
		require.ErrorContains(t, err, c.want, name)
		require.NotContains(t, err.Error(), "StringValue", name)
	}
}
