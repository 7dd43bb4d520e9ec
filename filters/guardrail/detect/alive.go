package detect

import (
	"regexp/syntax"
	"unicode/utf8"
)

// threads are the states that a pattern can be in after a text, and where in it each has begun. The earliest counts.
type threads struct {
	now, next []thread
	marks     []int // by instruction: the step in which it was last added
	step      int
}

type thread struct {
	pc    uint32
	begun int
}

// anything are all conditions: of the text that comes nothing is known.
const anything = ^syntax.EmptyOp(0)

// alive returns where in a text the first match begins that is not over, or that more text makes longer; its length if there is
// none. Conditions at the end are taken to hold.
func (p *pattern) alive(th *threads, text []byte) int {
	from := max(0, len(text)-min(p.most, MaxBytes)-utf8.UTFMax)
	for from > 0 && from < len(text) && !utf8.RuneStart(text[from]) {
		from--
	}
	if len(th.marks) < len(p.prog.Inst) {
		th.marks = make([]int, len(p.prog.Inst))
	}
	th.now = th.now[:0]
	before := rune(-1)
	if from > 0 {
		before, _ = utf8.DecodeLastRune(text[:from])
	}
	for i := from; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		th.step++
		th.next = th.next[:0]
		met := syntax.EmptyOpContext(before, r)
		for _, t := range th.now {
			th.add(p.prog, t.pc, t.begun, met)
		}
		th.add(p.prog, uint32(p.prog.Start), i, met)
		th.now = th.now[:0]
		for _, t := range th.next {
			if in := &p.prog.Inst[t.pc]; in.Op != syntax.InstMatch && in.MatchRune(r) {
				th.now = append(th.now, thread{in.Out, t.begun})
			}
		}
		before = r
		i += n
	}
	if len(th.now) == 0 {
		return len(text)
	}
	th.step++
	th.next = th.next[:0]
	for _, t := range th.now {
		th.add(p.prog, t.pc, t.begun, anything)
	}
	hold := len(text)
	for _, t := range th.next {
		hold = min(hold, t.begun)
	}
	return hold
}

// add adds the instructions that take a character, and those to which they lead without one.
func (th *threads) add(prog *syntax.Prog, pc uint32, begun int, met syntax.EmptyOp) {
	if th.marks[pc] == th.step {
		return
	}
	th.marks[pc] = th.step
	switch in := &prog.Inst[pc]; in.Op {
	case syntax.InstAlt, syntax.InstAltMatch:
		th.add(prog, in.Out, begun, met)
		th.add(prog, in.Arg, begun, met)
	case syntax.InstCapture, syntax.InstNop:
		th.add(prog, in.Out, begun, met)
	case syntax.InstEmptyWidth:
		if syntax.EmptyOp(in.Arg)&^met == 0 {
			th.add(prog, in.Out, begun, met)
		}
	case syntax.InstFail:
	default:
		th.next = append(th.next, thread{pc, begun})
	}
}
