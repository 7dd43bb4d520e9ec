package llm

import (
	"bytes"
	"math"
	"strconv"
)

// settings are the members that say how to answer. Model servers read them by pydantic, which takes text and numbers for
// booleans, and text and booleans for numbers: vLLM 0.32 streams for "yes" and stops after ten tokens for "1_0". They are
// read here as there, in JSON and in forms, where all is text.
var settings = set(memberStream, memberStreamOptions, memberStreamIncludeUsage, memberMaxTokens, memberMaxCompletionTokens, memberMaxOutputTokens,
	memberN, memberBestOf)

// maxSetting is the size up to which the text of a setting is read. What is longer is none.
const maxSetting = 32

// settingText is the text of a setting as far as it has been read.
type settingText struct {
	b [maxSetting + 1]byte
	n int
}

func (t *settingText) add(piece []byte) { t.n += copy(t.b[t.n:], piece) }

// take returns the text and begins another; empty if it was too long.
func (t *settingText) take() []byte {
	n := t.n
	t.n = 0
	if n > maxSetting {
		return nil
	}
	return t.b[:n]
}

// set takes the value of a setting: text, or a number or literal.
func (r *requestReader) set(value []byte, text bool) {
	switch r.member {
	case memberStream:
		r.facts.Stream = isTrue(value, text)
	case memberStreamOptions:
		if r.usageNext {
			r.facts.IncludeUsage = isTrue(value, text)
		}
		r.usageNext = false
	case memberStreamIncludeUsage:
		r.facts.IncludeUsage = isTrue(value, text)
	case memberMaxTokens, memberMaxOutputTokens:
		r.setMaxTokens(countOf(value, text), r.maxCompletionTokens)
	case memberMaxCompletionTokens:
		r.setMaxTokens(r.maxTokens, countOf(value, text))
	case memberN:
		r.setAnswers(countOf(value, text), r.bestOf)
	case memberBestOf:
		r.setAnswers(r.n, countOf(value, text))
	}
}

// setMaxTokens takes the larger bound: servers differ in which of the two they obey.
func (r *requestReader) setMaxTokens(tokens, completion int) {
	r.maxTokens, r.maxCompletionTokens = tokens, completion
	r.facts.MaxTokens = max(tokens, completion)
}

func (r *requestReader) setAnswers(n, bestOf int) {
	r.n, r.bestOf = n, bestOf
	r.facts.Answers = max(n, bestOf)
}

// isTrue reads a boolean. Of numbers only 1 is true; servers refuse the others.
func isTrue(value []byte, text bool) bool {
	if text || value[0] > '9' {
		return truth(value)
	}
	f, err := strconv.ParseFloat(string(value), 64)
	return err == nil && f == 1
}

// truth reads a boolean as Python servers do (pydantic's bool).
func truth(text []byte) bool {
	switch string(lower(text)) {
	case "true", "1", "yes", "on", "t", "y":
		return true
	}
	return false
}

// lower makes short ASCII words lower case, in place.
func lower(text []byte) []byte {
	for i, c := range text {
		if 'A' <= c && c <= 'Z' {
			text[i] = c + 'a' - 'A'
		}
	}
	return text
}

// countOf reads a number of tokens.
func countOf(value []byte, text bool) int {
	switch {
	case text:
		return countText(value)
	case string(value) == "true":
		return 1
	}
	return count(value)
}

// countText reads a number of tokens from text: digits, between which single underscores may stand, after a plus, with zeros
// behind a point. What is anything else is 0, as servers refuse it.
func countText(text []byte) int {
	digits := bytes.TrimPrefix(bytes.TrimSpace(text), []byte("+"))
	if whole, zeros, ok := bytes.Cut(digits, []byte(".")); ok {
		if len(zeros) == 0 || len(bytes.Trim(zeros, "0")) > 0 {
			return 0
		}
		digits = whole
	}
	var plain [maxSetting]byte
	n := 0
	for i, c := range digits {
		switch {
		case '0' <= c && c <= '9':
			plain[n] = c
			n++
		case c != '_' || i == 0 || i == len(digits)-1 || digits[i-1] == '_':
			return 0
		}
	}
	return count(plain[:n])
}

// count reads a number of tokens. What is no number, or a negative one, is 0; what is too large is the largest.
func count(raw []byte) int {
	n := 0
	for _, c := range raw {
		if c < '0' || c > '9' {
			return countSlow(raw)
		}
		if n = n*10 + int(c-'0'); n > math.MaxInt32 {
			return math.MaxInt32
		}
	}
	return n
}

// countSlow reads what is not plain digits: Python servers take 1e3 and 100.0 for integers too.
func countSlow(raw []byte) int {
	f, err := strconv.ParseFloat(string(raw), 64)
	switch {
	case math.IsInf(f, 1) || f > math.MaxInt32:
		return math.MaxInt32
	case err != nil || f < 0:
		return 0
	}
	return int(f)
}
