package detect

import "strings"

// phrases are what people write to have a model forget what it was told. Slots are divided by "/"; a slot has words of which one must
// stand there (the first may be several, joined by "_"), or, in brackets, words that may stand there, several times. Between words stands white space or little else.
var phrases = parsePhrases(`
ignore disregard forget override bypass neglect / [all any of the these those your my every each and both please previously given to prior above earlier
 previous preceding foregoing initial original system] / previous prior above earlier preceding foregoing initial original system existing former / [and
 or all of the your system safety security developer user] / instructions instruction prompt prompts rules rule directions directives guidelines guideline
 commands constraints restrictions programming training message messages
ignore disregard forget / [all of] / everything anything all / [that i have has been was were you] / above said told
ignore disregard bypass override forget / [all any of the] / your its / [own safety security content ethical moral internal built in and or] /
 instructions guidelines rules restrictions filters filter safeguards policies policy programming guardrails limitations
reveal show display leak expose / [me us all of the exact full complete entire whole verbatim out] / your the / [full complete entire original exact hidden
 secret initial own internal] / system initial hidden / prompt instructions
print_your repeat_your output_your / [full complete entire original exact hidden secret initial own internal] / system initial hidden / prompt instructions
you_are_now / [in a an the my going to be act as acting] / dan jailbroken unrestricted uncensored unfiltered
do_anything_now
jailbreak_mode
pretend_you pretend_that_you behave_as_if_you act_as_if_you / [are an a were] / have without unrestricted uncensored unfiltered / [no any] /
 restrictions rules limits limitations filters guidelines
`)

// phrase is one of them.
type phrase []slot

type slot struct {
	words  []string
	option bool
}

// Bounds of a phrase: words that may stand in one slot, and what may stand between words.
const (
	mostOptions = 5
	mostBetween = 3
	longestWord = 16
)

func parsePhrases(text string) []phrase {
	var all []phrase
	for line := range strings.SplitSeq(strings.ReplaceAll(strings.TrimSpace(text), "\n ", " "), "\n") {
		var p phrase
		for part := range strings.SplitSeq(line, "/") {
			part = strings.TrimSpace(part)
			inner, option := strings.CutPrefix(part, "[")
			words := strings.Fields(strings.TrimSuffix(inner, "]"))
			for i := range words {
				words[i] = strings.ReplaceAll(words[i], "_", " ")
			}
			p = append(p, slot{words, option})
		}
		all = append(all, p)
	}
	return all
}

// addPhrases adds the words with which phrases begin.
func (d *Detector) addPhrases() {
	if !d.kinds.Has(Injection) {
		return
	}
	for i, p := range phrases {
		for _, word := range p[0].words {
			d.words.add(literal{text: word, fold: true, means: meansPhrase, rule: i})
		}
	}
}

// phrase verifies the phrase that begins with a word.
func (s *Scanner) phrase(l *literal, from int) {
	if isWord(s.text, from) {
		return
	}
	p := phrases[l.rule]
	at := from + len(l.text)
	if at < len(s.text) && wordBegins(s.text[at:]) {
		return
	}
	for i := 1; i < len(p); i++ {
		for n := 0; ; n++ {
			begin, end, open := s.word(at)
			if open {
				s.open(from)
				return
			}
			if p[i].option && (n == mostOptions || !p[i].has(s.text[begin:end]) || i+1 < len(p) && p[i+1].has(s.text[begin:end])) {
				break // the next slot
			}
			if !p[i].has(s.text[begin:end]) {
				return
			}
			if at = end; !p[i].option {
				break
			}
		}
	}
	s.add(Injection, from, at)
}

// word returns the next word at or after an index; empty if something else stands there. It is open if more text decides.
func (s *Scanner) word(at int) (begin, end int, open bool) {
	t := s.text
	begin = at
	for begin < len(t) && begin < at+mostBetween && !isWordByte(t[begin]) && t[begin] != '.' {
		begin++
		if begin < len(t) && isEscape(t, begin+1) {
			begin++
		}
	}
	end = begin
	for end < len(t) && end-begin <= longestWord && isLetter(t[end]) {
		end++
	}
	return begin, end, s.ends(end)
}

// has reports whether a word is of the slot.
func (s *slot) has(word []byte) bool {
	for _, w := range s.words {
		if isFolded(word, w) {
			return true
		}
	}
	return false
}
