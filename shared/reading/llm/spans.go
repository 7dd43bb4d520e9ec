package llm

import (
	"bytes"
	"sort"
	"unicode/utf8"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
)

// String is one string of Request.Prompt, bytes [From, To) of it.
type String struct {
	From, To int
	// Parts is the same for the texts of one message that consists of several parts, see Request.Joined; 0 for others.
	Parts int
	// Arguments: it is of a call, and mostly JSON.
	Arguments bool
	// Signed: it is of reasoning that its model has signed. What is changed in it makes the signature wrong.
	Signed bool
	// Role says who speaks.
	Role Role
	// Turn numbers the messages of a conversation from 1; 0 for what stands outside of one.
	Turn int
}

// Role says who speaks in a string of a prompt.
type Role uint8

const (
	// UserRole is the user's, and every other that is none of these.
	UserRole Role = iota
	// SystemRole is the operator's: system prompts, instructions, tools.
	SystemRole
	// AssistantRole is the model's.
	AssistantRole
	// ToolRole is a tool's: what it returned.
	ToolRole
	// CallRole is the model's, to a tool: the arguments of a call.
	CallRole
)

var roleNames = [...]string{"user", system, "assistant", "tool", "call"}

// String returns a short lower-case name.
func (r Role) String() string { return roleNames[min(int(r), len(roleNames)-1)] }

// roleOf returns what a role, or the type of an item or a part, says of who speaks, and whether it says that.
func roleOf(word []byte) (Role, bool) {
	switch string(word) {
	case system, "developer":
		return SystemRole, true
	case "assistant", "model", "reasoning":
		return AssistantRole, true
	case "tool", "function", "tool_result", "function_call_output", "custom_tool_call_output":
		return ToolRole, true
	case "tool_use", "server_tool_use", "function_call", "custom_tool_call":
		return CallRole, true
	}
	return UserRole, false
}

// source says where in the body n bytes of Prompt stand. If they take as many bytes there they stand there as they are, else they are
// an atom: written with an escape.
type source struct {
	at, n    int
	from, to int64
}

// sources are those of a text, in order.
type sources []source

func (s *source) atom() bool { return int64(s.n) != s.to-s.from }

// piece is where the piece of text that is being read stands in the body.
type piece struct {
	start    int64 // of the string it is of
	from, to int64
	raw      []byte // with escapes; nil if it has none, or was cut
}

// sourceKept is how many sources a scanner keeps the memory of for the next request.
const sourceKept = 1 << 16

// Source returns where in the body the bytes [from, to) of Prompt stand, which are of one string, and at least one. It is what is
// between the quotes, with all of an escape of which a part is meant.
func (r *Request) Source(from, to int) Span {
	return r.sources.span(from, to)
}

func (s sources) span(from, to int) Span {
	first, last := s.of(from), s.of(to-1)
	span := Span{first.from, last.to}
	if !first.atom() {
		span.Start += int64(from - first.at)
	}
	if !last.atom() {
		span.End = last.from + int64(to-last.at)
	}
	return span
}

// of returns the source of a byte.
func (s sources) of(at int) *source {
	return &s[sort.Search(len(s), func(i int) bool { return s[i].at > at })-1]
}

// add adds the sources of a text that is about to be added at an index.
func (s *sources) add(at int, text []byte, p *piece) {
	if p.raw == nil || len(p.raw) == len(text) {
		*s = append(*s, source{at, len(text), p.from, p.to})
	} else {
		*s = appendSources(*s, at, p.from, p.raw)
	}
}

// locate notes where the piece of text stands that a scanner reports.
func (p *piece) locate(json *jsonscan.Scanner) {
	if start := json.Start(); p.start != start || p.to == 0 {
		p.start, p.to = start, start+1
	}
	p.from, p.to, p.raw = p.to, json.Offset(), json.Raw()
}

// note notes where the text stands that is about to be added to Prompt, and whether a string begins with it.
func (r *requestReader) note(text []byte, begins bool) {
	f, p := &r.facts, &r.prompt
	at := len(f.Prompt)
	if begins {
		s := String{From: at, Arguments: p.key == keyArguments, Role: r.roleOutside()}
		if p.parts != 0 && (p.key == keyPart || r.json.Depth() == p.parts) {
			s.Parts = p.partsID
		}
		f.Strings = append(f.Strings, s)
	}
	f.Strings[len(f.Strings)-1].To = at + len(text)
	f.sources.add(at, text, &r.piece)
}

// roleOutside is the role of a string that stands outside of a conversation.
func (r *requestReader) roleOutside() Role {
	switch r.member {
	case memberSystem, memberInstructions, memberTools, memberTemplateArgs:
		return SystemRole
	}
	return UserRole
}

// endTurn notes who has spoken in the message that ends, and that it was one.
func (r *requestReader) endTurn() {
	p := &r.prompt
	if r.member != memberMessages && r.member != memberInput || !r.want.Strings {
		return
	}
	p.turn++
	role, _ := roleOf(p.role.text())
	for i := min(p.turnFrom, len(r.facts.Strings)); i < len(r.facts.Strings); i++ {
		s := &r.facts.Strings[i]
		switch s.Turn = p.turn; {
		case s.Arguments:
			s.Role = CallRole
		case s.Role == UserRole:
			s.Role = role
		}
	}
}

// endPart notes who speaks in the part of a message that ends, if it is not who speaks in the message.
func (r *requestReader) endPart() {
	p := &r.prompt
	for i := min(p.block, len(r.facts.Strings)); i < len(r.facts.Strings); i++ {
		s := &r.facts.Strings[i]
		s.Signed = s.Signed || p.signed
		if p.partRole != UserRole {
			s.Role = p.partRole
		}
	}
}

// appendSources adds the sources of a piece that is written with escapes. None of them is of a pair of surrogates.
func appendSources(all sources, at int, body int64, raw []byte) sources {
	add := func(n, size int) {
		if size > 0 {
			all = append(all, source{at, n, body, body + int64(size)})
			at, body = at+n, body+int64(size)
		}
	}
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			add(len(raw), len(raw))
			return all
		}
		add(i, i)
		size, decoded := 2, 1
		if raw[i+1] == 'u' {
			unit, _ := codeUnit(raw[i+2:])
			size, decoded = 6, utf8.RuneLen(unit)
		}
		add(decoded, size)
		raw = raw[i+size:]
	}
}

// forgetSources takes back the strings in [start, end) of Prompt, which are deleted.
func (r *Request) forgetSources(start, end int) {
	n := end - start
	strings := r.Strings[:0]
	for _, s := range r.Strings {
		if s.From >= end {
			s.From, s.To = s.From-n, s.To-n
		} else if s.From >= start {
			continue
		}
		strings = append(strings, s)
	}
	r.Strings = strings
	sources := r.sources[:0]
	for _, s := range r.sources {
		if s.at >= end {
			s.at -= n
		} else if s.at >= start {
			continue
		}
		sources = append(sources, s)
	}
	r.sources = sources
}

// reuseSources returns the memory of what was noted for the next request, unless it is huge.
func reuseSources(all sources) sources {
	if cap(all) > sourceKept {
		return nil
	}
	return all[:0]
}
