package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// Limits of a document. They are far above what a configuration needs. Its author is trusted, but an error in the tool
// that wrote it must not use up the proxy's memory.
const (
	MaxBytes = 1 << 20 // bytes of the document
	MaxDepth = 64      // lists and objects within each other
)

var tooDeep = fmt.Sprintf("nested more than %d deep", MaxDepth)

// parse returns the root of the only document in doc.
func parse(doc []byte) (*yaml.Node, *Error) {
	if len(doc) > MaxBytes {
		return nil, &Error{
			Line: 1, Column: 1,
			Message: fmt.Sprintf("the document has %d bytes, want %s or less", len(doc), shortSize(MaxBytes)),
		}
	}
	root, wrong := parseAny(doc)
	if wrong != nil {
		return nil, wrong
	}
	if n := below(root, MaxDepth); n != nil {
		return nil, &Error{Line: n.Line, Column: n.Column, Message: tooDeep}
	}
	return root, nil
}

// parseAny parses the document as JSON if it is JSON, otherwise as YAML. In practice YAML is not a superset of JSON: the
// parser refuses surrogate pairs (how most languages escape an emoji) and some characters.
func parseAny(doc []byte) (*yaml.Node, *Error) {
	doc = bytes.TrimPrefix(doc, []byte("\xef\xbb\xbf")) // a byte order mark, as some editors on Windows write it
	if !bytes.HasPrefix(bytes.TrimLeft(doc, " \t\r\n"), []byte("{")) {
		return parseYAML(doc)
	}
	root, notJSON := parseJSON(doc)
	if notJSON == nil {
		return root, nil
	}
	root, notYAML := parseYAML(doc) // {in: [flow, style]}
	if notYAML != nil && position(*notYAML, *notJSON) < 0 {
		return nil, notJSON // it parsed further as JSON, so it is meant to be JSON
	}
	return root, notYAML
}

// below returns a node that is more than depth lists and objects deep, itself counted, nil if there is none.
func below(n *yaml.Node, depth int) *yaml.Node {
	if n.Kind != yaml.SequenceNode && n.Kind != yaml.MappingNode {
		return nil
	}
	if depth == 0 {
		return n
	}
	for _, child := range n.Content {
		if deep := below(child, depth-1); deep != nil {
			return deep
		}
	}
	return nil
}

// looksDeep reports the first line where the YAML parser would recurse so deeply that a wasm VM might run out of stack,
// which ends the VM. It counts brackets and indentation and ignores quotes and comments, so its limits are far above
// MaxDepth, and it forgets open brackets of a text at a line that is not indented more than they are.
func looksDeep(doc []byte) (line int, deep bool) {
	const maxBrackets, maxIndent = 256, 512
	brackets, opened := 0, 0 // number of open brackets, and the indentation of the line with the outermost
	for text := range bytes.Lines(doc) {
		line++
		indent := len(text)
		text = bytes.TrimLeft(text, " \t-?:") // each of them can begin another level in block style
		indent -= len(text)
		if indent <= opened && bytes.IndexAny(text, "[]{}") != 0 {
			brackets = 0
		}
		for _, c := range text {
			switch {
			case c == '[' || c == '{':
				if brackets == 0 {
					opened = indent
				}
				brackets++
			case brackets > 0 && (c == ']' || c == '}'):
				brackets--
			}
			deep = deep || brackets > maxBrackets
		}
		if deep || indent > maxIndent {
			return line, true
		}
	}
	return 0, false
}

func parseYAML(doc []byte) (*yaml.Node, *Error) {
	if line, deep := looksDeep(doc); deep {
		return nil, &Error{Line: line, Column: 1, Message: tooDeep}
	}
	parser := yaml.NewDecoder(bytes.NewReader(doc))
	first, err := nextYAML(parser)
	switch {
	case errors.Is(err, io.EOF), err == nil && kindOf(first.Content[0]) == null:
		return nil, &Error{Line: 1, Column: 1, Message: "the document is empty"}
	case err != nil:
		return nil, malformed(doc, err)
	}
	second, err := nextYAML(parser)
	switch {
	case errors.Is(err, io.EOF):
		return first.Content[0], nil
	case err != nil:
		return nil, malformed(doc, err)
	}
	return nil, &Error{Line: second.Line, Column: second.Column, Message: "a second document begins here, want only one"}
}

// nextYAML returns the next document of the stream, or io.EOF.
func nextYAML(parser *yaml.Decoder) (*yaml.Node, error) {
	var n yaml.Node
	err := parser.Decode(&n)
	return &n, err
}

// yamlLine matches the position that the YAML parser gives. It is dropped: it is missing for line 1, and often it is
// where the surrounding object begins, far above the mistake.
var yamlLine = regexp.MustCompile(`^yaml: (line \d+: )?`)

// malformed returns a parser's error with its line: the last one of the smallest number of lines that the parser refuses
// for the same reason.
func malformed(doc []byte, err error) *Error {
	lines := bytes.SplitAfter(doc, []byte("\n"))
	end := 0
	ends := make([]int, len(lines))
	for i, line := range lines {
		end += len(line)
		ends[i] = end
	}
	at := sort.Search(len(lines)-1, func(i int) bool {
		var n yaml.Node
		part := yaml.Unmarshal(doc[:ends[i]], &n)
		return part != nil && part.Error() == err.Error()
	})
	reason := yamlLine.ReplaceAllString(err.Error(), "")
	if strings.Contains(reason, "anchor") || strings.Contains(reason, "alphabetic or numeric") {
		reason += quoteStar
	}
	indent := len(lines[at]) - len(bytes.TrimLeft(lines[at], " \t"))
	if bytes.IndexByte(lines[at][:indent], '\t') >= 0 {
		reason += " (YAML indents with spaces, not tabs)"
	}
	return &Error{Line: at + 1, Column: indent + 1, Message: "malformed YAML: " + reason}
}

func parseJSON(doc []byte) (*yaml.Node, *Error) {
	var scan jsonscan.Scanner
	t := &jsonTree{scan: &scan, doc: doc, line: 1, column: 1}
	scan.Reset(t, jsonscan.Limits{
		Depth: MaxDepth, KeyBytes: jsonscan.MaxKeyBytes, ScalarBytes: jsonscan.MaxScalarBytes,
		StringBytes: MaxBytes, Members: MaxBytes, Items: MaxBytes,
	})
	err := scan.Feed(doc)
	if err == nil {
		err = scan.End()
	}
	var wrong *jsonscan.Error
	if errors.As(err, &wrong) {
		t.advance(wrong.Offset)
		message := "malformed JSON: " + wrong.Code.String()
		if wrong.Code == jsonscan.Depth {
			message = tooDeep
		}
		return nil, &Error{Line: t.line, Column: t.column, Message: message}
	}
	return t.root, nil
}

// jsonTree builds the nodes that the YAML parser would build.
type jsonTree struct {
	scan         *jsonscan.Scanner
	doc          []byte // from the position on
	offset       int64  // the position, in bytes from the start of the document
	line, column int    // the position, from 1
	root         *yaml.Node
	open         []*yaml.Node
	text         strings.Builder
}

// advance moves the position forward to offset.
func (t *jsonTree) advance(offset int64) {
	passed := t.doc[:offset-t.offset]
	t.doc, t.offset = t.doc[len(passed):], offset
	if newline := bytes.LastIndexByte(passed, '\n'); newline >= 0 {
		t.line += bytes.Count(passed, []byte("\n"))
		t.column = 1
		passed = passed[newline+1:]
	}
	t.column += utf8.RuneCount(passed)
}

func (t *jsonTree) add(n *yaml.Node) {
	t.advance(t.scan.Start())
	n.Line, n.Column = t.line, t.column
	if len(t.open) == 0 {
		t.root = n
		return
	}
	parent := t.open[len(t.open)-1]
	parent.Content = append(parent.Content, n)
}

func (t *jsonTree) Open(array bool) {
	n := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
	if array {
		n.Kind = yaml.SequenceNode
	}
	t.add(n)
	t.open = append(t.open, n)
}

func (t *jsonTree) Close(bool) { t.open = t.open[:len(t.open)-1] }

func (t *jsonTree) Key(name []byte) {
	t.add(&yaml.Node{Kind: yaml.ScalarNode, Style: yaml.DoubleQuotedStyle, Value: string(name)})
}

func (t *jsonTree) Text(piece []byte) { t.text.Write(piece) }

func (t *jsonTree) TextEnd() {
	t.add(&yaml.Node{Kind: yaml.ScalarNode, Style: yaml.DoubleQuotedStyle, Value: t.text.String()})
	t.text.Reset()
}

func (t *jsonTree) Scalar(raw []byte) {
	t.add(&yaml.Node{Kind: yaml.ScalarNode, Value: string(raw)})
}
