package detect

import (
	"errors"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// PatternError says which pattern of a configuration cannot be used, and why.
type PatternError struct {
	Index int
	Why   string
}

// patterns are the regular expressions of a configuration. One that needs a literal is only tried near it.
type patterns struct {
	all   []pattern
	words literals
	table *table
}

type pattern struct {
	re      *regexp.Regexp
	prog    *syntax.Prog
	literal bool // each match has one of some literals in it
	most    int  // bytes of the longest match; unbounded if there is none
	line    bool // no match has a line feed in it
}

// unbounded is more than any text has.
const unbounded = 1 << 40

// segment is a part of the text in which a pattern may match.
type segment struct{ pattern, from, to int }

func newPatterns(exprs []string) (*patterns, *PatternError) {
	if len(exprs) == 0 {
		return nil, nil
	}
	p := &patterns{table: &table{}}
	for i, expr := range exprs {
		re, err := regexp.Compile(expr)
		if err != nil {
			return nil, &PatternError{i, notRE2(err)}
		}
		if re.MatchString("") {
			return nil, &PatternError{i, "matches the empty string, and so every text"}
		}
		tree, err := syntax.Parse(expr, syntax.Perl)
		if err != nil {
			return nil, &PatternError{i, err.Error()}
		}
		shape := shapeOf(tree)
		prog, err := syntax.Compile(tree.Simplify())
		if err != nil {
			return nil, &PatternError{i, err.Error()}
		}
		needed := required(tree)
		for _, l := range needed {
			l.means, l.rule = meansPattern, i
			p.words.add(l)
		}
		p.all = append(p.all, pattern{re: re, prog: prog, literal: len(needed) > 0 && !shape.anchored, most: shape.most, line: !shape.breaks})
	}
	p.words.index(p.table)
	return p, nil
}

// notRE2 says what is wrong with an expression. Go's own message takes a look-behind for a named group.
func notRE2(err error) string {
	why := "not an RE2 expression: " + strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	var e *syntax.Error
	if errors.As(err, &e) && lookaround.MatchString(e.Expr) {
		why += " (RE2 has no lookaround)"
	}
	return why
}

var lookaround = regexp.MustCompile(`^\(\?<?[=!]`)

// scan adds the findings in a text to those of the scanner, and returns where a match may begin that more text decides.
func (p *patterns) scan(s *Scanner, text []byte, before int, last bool) (holdAt int) {
	s.segments = s.segments[:0]
	for i := range p.all {
		if !p.all[i].literal {
			s.segments = append(s.segments, segment{i, 0, len(text)})
		}
	}
	p.collect(s, text)
	for _, at := range s.segments {
		for _, m := range p.all[at.pattern].re.FindAllIndex(text[at.from:at.to], -1) {
			if from, to := at.from+m[0], at.from+m[1]; from < to {
				s.found = append(s.found, Finding{Pattern, from, to, at.pattern})
			}
		}
	}
	holdAt = len(text)
	for i := range p.all {
		if !last {
			holdAt = min(holdAt, p.all[i].alive(&s.threads, text))
		}
	}
	return holdAt
}

// collect finds the literals, and notes around each in which part of the text its pattern may match.
func (p *patterns) collect(s *Scanner, text []byte) {
	for i := 0; i < len(text); {
		var n int
		n, i = p.table.look(text, i, &s.places)
		for k := range n {
			for at := s.places[k]; at.what != 0; {
				i, _ := at.next()
				p.literalsAt(s, text, i)
			}
		}
	}
}

// literalsAt notes the literals whose anchor is at an index.
func (p *patterns) literalsAt(s *Scanner, text []byte, i int) {
	w := &p.words
	for n := w.first(text, i); n != 0; n = w.all[n].next {
		if l := &w.all[n]; len(l.text) > 1 && l.at(text, i-l.anchor) {
			p.around(s, text, l, i-l.anchor)
		}
	}
	for n := w.heads[bucket(0, lower(text[i]))]; n != 0; n = w.all[n].next {
		if l := &w.all[n]; len(l.text) == 1 && l.at(text, i) {
			p.around(s, text, l, i)
		}
	}
}

// around notes the part of the text around a literal at an index. Parts of a pattern that overlap are one.
func (p *patterns) around(s *Scanner, text []byte, l *literal, at int) {
	re := &p.all[l.rule]
	if !re.literal {
		return
	}
	// What stands beside a match counts, too.
	from, to := max(0, at-re.most-utf8.UTFMax), min(len(text), at+len(l.text)+re.most+utf8.UTFMax)
	if re.line && re.most == unbounded {
		from, to = at, at
		for from > 0 && text[from-1] != '\n' {
			from--
		}
		for to < len(text) && text[to] != '\n' {
			to++
		}
		from, to = max(0, from-1), min(len(text), to+1)
	}
	for from > 0 && !utf8.RuneStart(text[from]) {
		from--
	}
	for to < len(text) && !utf8.RuneStart(text[to]) {
		to++
	}
	for i := len(s.segments) - 1; i >= 0; i-- {
		if g := &s.segments[i]; g.pattern == l.rule {
			if from <= g.to {
				g.from, g.to = min(g.from, from), max(g.to, to)
				return
			}
			break
		}
	}
	s.segments = append(s.segments, segment{l.rule, from, to})
}

// treeShape is what is known of all matches of an expression.
type treeShape struct {
	most     int
	breaks   bool // there may be a line feed in one
	anchored bool // it asks for the beginning or the end of the whole text
}

func shapeOf(re *syntax.Regexp) (s treeShape) {
	for _, sub := range re.Sub {
		inner := shapeOf(sub)
		s.breaks, s.anchored = s.breaks || inner.breaks, s.anchored || inner.anchored
		if re.Op == syntax.OpConcat {
			s.most = min(unbounded, s.most+inner.most)
		} else {
			s.most = max(s.most, inner.most)
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			s.breaks = s.breaks || r == '\n'
		}
		s.most = utf8.UTFMax * len(re.Rune) // the other case of a letter may be longer
	case syntax.OpCharClass:
		for i := 0; i < len(re.Rune); i += 2 {
			s.breaks = s.breaks || re.Rune[i] <= '\n' && '\n' <= re.Rune[i+1]
			s.most = max(s.most, utf8.RuneLen(re.Rune[i+1]))
		}
		s.most = max(s.most, 1)
	case syntax.OpAnyChar:
		s.most, s.breaks = utf8.UTFMax, true
	case syntax.OpAnyCharNotNL:
		s.most = utf8.UTFMax
	case syntax.OpStar, syntax.OpPlus:
		s.most = unbounded
	case syntax.OpRepeat:
		if s.most *= re.Max; re.Max < 0 || s.most > unbounded {
			s.most = unbounded
		}
	case syntax.OpBeginText, syntax.OpEndText:
		s.anchored = true
	}
	return s
}

// mostNeeded bounds how many literals stand for one expression.
const mostNeeded = 32

// required returns literals of which each match has one in it; none if there are no such literals.
func required(re *syntax.Regexp) []literal {
	switch re.Op {
	case syntax.OpLiteral:
		return literalOf(re)
	case syntax.OpCharClass:
		return classOf(re)
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return required(re.Sub[0])
		}
	case syntax.OpConcat:
		var best []literal
		for _, sub := range re.Sub {
			if r := required(sub); worth(r) > worth(best) {
				best = r
			}
		}
		return best
	case syntax.OpAlternate:
		var all []literal
		for _, sub := range re.Sub {
			r := required(sub)
			if all = append(all, r...); len(r) == 0 || len(all) > mostNeeded {
				return nil
			}
		}
		return all
	}
	return nil
}

// worth says how rare literals are likely to be: the shortest counts.
func worth(all []literal) int {
	if len(all) == 0 {
		return 0
	}
	least := unbounded
	for _, l := range all {
		least = min(least, 100*min(len(l.text), 4)+rarity(l.text[anchorOf(l.text)])-len(all))
	}
	return least
}

// literalOf returns the longest part of a literal that is ASCII. Without regard to case k and s are not ASCII: the Kelvin sign and the
// long s are their other cases.
func literalOf(re *syntax.Regexp) []literal {
	fold := re.Flags&syntax.FoldCase != 0
	var best, part []byte
	for _, r := range re.Rune {
		if r >= utf8.RuneSelf || fold && (lower(byte(r)) == 'k' || lower(byte(r)) == 's') {
			part = nil
			continue
		}
		b := byte(r)
		if fold {
			b = lower(b)
		}
		if part = append(part, b); len(part) > len(best) {
			best = append([]byte(nil), part...)
		}
	}
	if len(best) == 0 {
		return nil
	}
	return []literal{{text: string(best), fold: fold}}
}

// classOf returns the characters of a small class.
func classOf(re *syntax.Regexp) (all []literal) {
	const most = 4
	for i := 0; i < len(re.Rune); i += 2 {
		for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
			if r >= utf8.RuneSelf || len(all) == most {
				return nil
			}
			all = append(all, literal{text: string(r)})
		}
	}
	return all
}
