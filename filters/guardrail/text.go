package guardrail

import (
	"bytes"
	"cmp"
	"slices"
	"unicode/utf8"

	"github.com/inlet-proxy/inlet/filters/guardrail/provider"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// text is a string of a prompt, or a piece of a response, that services judge.
type text struct {
	body   []byte // the original
	edits  []edit // of body
	now    []byte // body with the edits made
	before []byte // what stands before it, and has gone on
	role   llm.Role
	turn   int
	parts  int  // as of llm.String
	json   bool // if it is JSON, the strings in it count as well
	call   bool // ... and only those may be edited: it is what a tool is called with
	signed bool // it cannot be edited
	copyOf int  // one more than the index of an earlier text that is the same; 0: none
	hidden bool // it is not to be judged now
	tail   int  // bytes at its end that are not to be judged yet: what is looked for here may stand there
}

// edit makes edits of the text as it is now.
func (t *text) edit(edits []edit) {
	t.edits = then(t.edits, edits, t.now)
	t.now = applied(nil, t.body, t.edits)
}

// group is what is judged together: all that one speaker says, with line feeds between.
type group struct {
	role     llm.Role
	text     []byte
	segments []segment
}

// segment says of which text bytes [from, to) of a group are. What stands outside of segments cannot be edited.
type segment struct {
	from, to int
	text     int
	leaf     int // of the strings in its JSON, or one of the next
}

const (
	itself = -1 // the segment is the text
	named  = -2 // it is the name of a member, which cannot be edited
)

// piece is as much of a group as a service takes.
type piece struct {
	group, from, to int
	sum             sum
}

// speakers is the order in which groups are judged.
var speakers = [...]llm.Role{llm.SystemRole, llm.UserRole, llm.AssistantRole, llm.ToolRole, llm.CallRole}

// gather makes the groups of the texts that a check is to judge.
func (s *state) gather(se *session, c *check) []group {
	if se.response {
		g := group{role: llm.AssistantRole}
		for i := range se.texts {
			s.add(&g, se, i, c.action)
		}
		return []group{g}
	}
	var all []group
	for _, role := range speakers {
		g := group{role: role}
		for i := range se.texts {
			if t := &se.texts[i]; t.role == role && s.concerns(c.policy, 1<<role, t.turn) {
				s.add(&g, se, i, c.action)
			}
		}
		g.addJoined(se)
		if len(bytes.TrimSpace(g.text)) > 0 {
			all = append(all, g)
		}
	}
	return all
}

// add adds a text, and if it is JSON the strings in it once more, each with the name of its member, if they are written with escapes. If
// only they may be edited, and are to be, only they are added.
func (s *state) add(g *group, se *session, i int, a action) {
	t := &se.texts[i]
	if t.copyOf > 0 || t.hidden || len(t.now) == 0 {
		return
	}
	g.separate()
	g.text = append(g.text, t.before...)
	isJSON := t.json && s.isJSON(t.now)
	only := isJSON && t.call && a == redact
	if !only {
		g.append(t.now[:len(t.now)-t.tail], i, itself)
	}
	if !isJSON || !only && bytes.IndexByte(t.now, '\\') < 0 {
		return
	}
	n := 0
	s.leaves(t.now, nil, 0, nil, func(leaf, key []byte, _ []step) {
		g.separate()
		if len(key) > 0 {
			g.append(key, i, named)
			g.text = append(g.text, ": "...)
		}
		g.append(leaf, i, n)
		n++
	})
}

// addJoined adds the parts of each message that has several, without anything between them, as some servers join them.
func (g *group) addJoined(se *session) {
	whole := slices.DeleteFunc(slices.Clone(g.segments), func(seg segment) bool { return seg.leaf != itself })
	for i := 0; i < len(whole); {
		parts, first := se.texts[whole[i].text].parts, i
		for i++; i < len(whole) && se.texts[whole[i].text].parts == parts; i++ {
		}
		if parts == 0 || i-first < 2 {
			continue
		}
		g.separate()
		for _, seg := range whole[first:i] {
			g.append(se.texts[seg.text].now, seg.text, itself)
		}
	}
}

func (g *group) separate() {
	if len(g.text) > 0 {
		g.text = append(g.text, '\n')
	}
}

func (g *group) append(part []byte, text, leaf int) {
	from := len(g.text)
	g.text = append(g.text, part...)
	g.segments = append(g.segments, segment{from, len(g.text), text, leaf})
}

// isJSON reports whether strings are to be looked for in a text.
func (s *state) isJSON(text []byte) bool { return s.valuesAt(0).Read(text) }

func (s *state) valuesAt(level int) *llm.Values {
	if s.values[level] == nil {
		s.values[level] = &llm.Values{}
	}
	return s.values[level]
}

// step is the way from a string to the JSON that it is in.
type step struct {
	values *llm.Values
	from   int
}

// leaves calls each for the strings in JSON, also in JSON that is in a string of it. within says how to get from a leaf to the text.
func (s *state) leaves(text, key []byte, level int, within []step, each func(leaf, key []byte, within []step)) {
	if level < maxNested {
		if v := s.valuesAt(level); v.Read(text) {
			for _, value := range v.Each {
				s.leaves(v.Text[value.From:value.To], value.Key, level+1, append(within, step{v, value.From}), each)
			}
			return
		}
	}
	if len(text) > 0 {
		each(text, key, within)
	}
}

// split returns the pieces of groups for a service that takes so many bytes, 0 for any number. They overlap, so that what is
// short is whole in one of them.
func split(groups []group, limit int) (all []piece) {
	for i := range groups {
		text := groups[i].text
		most := limit
		if most <= 0 {
			most = len(text)
		}
		for from := 0; from < len(text); {
			to := atRune(text, min(from+most, len(text)))
			if to <= from { // the limit is shorter than a character
				to = len(text)
			}
			all = append(all, piece{group: i, from: from, to: to})
			if to == len(text) {
				break
			}
			from = max(from+1, atRune(text, to-min(overlapMost, most/4)))
		}
	}
	return all
}

// overlapMost is how much of a piece the next one has again.
const overlapMost = 256

// atRune returns the last place up to at where a character begins.
func atRune(text []byte, at int) int {
	for at > 0 && at < len(text) && !utf8.RuneStart(text[at]) {
		at--
	}
	return max(at, 0)
}

// lastOf returns the last bytes of a longer text, at most as many, from where a character begins.
func lastOf(text []byte, most int) []byte {
	from := len(text) - most
	for from < len(text) && !utf8.RuneStart(text[from]) {
		from++
	}
	return text[from:]
}

// question is what a service is asked about a piece.
func (s *state) question(se *session, c *check, p *piece) provider.Question {
	g := &c.groups[p.group]
	q := provider.Question{Text: g.text[p.from:p.to], Response: se.response, Model: se.model}
	if se.response {
		q.Prompt = se.prompt
		if limit := c.by.protocol.Limit(); limit > 0 && len(q.Prompt) > limit {
			q.Prompt = lastOf(q.Prompt, limit)
		}
	} else {
		q.Role = g.role.String()
		if g.role == llm.CallRole {
			q.Role = llm.AssistantRole.String()
		}
	}
	return q
}

// placed is what has become of edits.
type placed uint8

const (
	nowhere placed = iota // they were all of what has gone on, or of what stands between texts
	made
	inNames  // they were all of what cannot be edited, and names of members are among that
	inSigned // they were of a text that is signed
)

// place puts edits of a group into the texts of its segments.
func (s *state) place(se *session, g *group, edits []edit) (done placed) {
	byText := map[int][]edit{}
	leaves := map[segment][]edit{}
	for _, e := range edits {
		first := true
		for _, seg := range g.segments {
			from, to := max(e.from, seg.from), min(e.to, seg.to)
			if from > to || from == to && (e.from != e.to || !first) {
				continue
			}
			if seg.leaf == named {
				if from < to {
					done = inNames
				}
				continue
			}
			part := edit{from - seg.from, to - seg.from, e.with}
			switch {
			case first:
			case part.from > 0 || to < seg.to:
				part.with = ""
			default:
				part.with = "[REDACTED]" // not empty: Anthropic refuses those
			}
			first = false
			if seg.leaf == itself {
				byText[seg.text] = append(byText[seg.text], part)
			} else {
				leaves[seg] = append(leaves[seg], part)
			}
		}
	}
	for seg, part := range leaves {
		byText[seg.text] = append(byText[seg.text], s.fromLeaf(se.texts[seg.text].now, seg.leaf, part)...)
	}
	for i, part := range byText {
		t := &se.texts[i]
		if t.signed {
			return inSigned
		}
		t.edit(merged(part))
		done = made
	}
	return done
}

// merged puts edits in order. Where two overlap, one takes the place of both.
func merged(edits []edit) []edit {
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Or(a.from-b.from, b.to-a.to) })
	out := edits[:0]
	for _, e := range edits {
		if n := len(out); n > 0 && (e.from < out[n-1].to || e == out[n-1]) {
			out[n-1].to = max(out[n-1].to, e.to)
			continue
		}
		out = append(out, e)
	}
	return out
}

// fromLeaf turns edits of a string in JSON into edits of the JSON.
func (s *state) fromLeaf(text []byte, leaf int, edits []edit) []edit {
	n := 0
	var out []edit
	s.leaves(text, nil, 0, nil, func(is, _ []byte, within []step) {
		if n++; n-1 != leaf {
			return
		}
		for _, e := range edits {
			e = atLeastOne(is, e)
			for _, in := range slices.Backward(within) {
				e.from, e.to = in.values.Source(in.from+e.from, in.from+e.to)
				e.with = escaped(e.with)
			}
			out = append(out, e)
		}
	})
	return out
}

// atLeastOne makes an edit that only puts something in one that replaces a character, too.
func atLeastOne(text []byte, e edit) edit {
	if e.from < e.to {
		return e
	}
	if e.to < len(text) {
		_, n := utf8.DecodeRune(text[e.to:])
		e.to += n
		e.with += string(text[e.from:e.to])
		return e
	}
	_, n := utf8.DecodeLastRune(text[:e.from])
	e.from -= n
	e.with = string(text[e.from:e.to]) + e.with
	return e
}

// escaped is a text as it stands in a string of JSON.
func escaped(text string) string {
	quoted := llm.AppendString(nil, text)
	return string(quoted[1 : len(quoted)-1])
}
