package llm

import (
	"bytes"
	"errors"
	"slices"
)

// TextKind is what a text of a response is to the client.
type TextKind uint8

// The kinds of text.
const (
	// OtherText stands at a place that has no meaning here: it may be of an extension, or the name of a tool.
	OtherText TextKind = iota
	// AnswerText is what the model says to the user.
	AnswerText
	// ReasoningText is what it has thought before.
	ReasoningText
	// ArgumentsText is of the arguments of a tool call, which are JSON.
	ArgumentsText
	// RefusalText says why the model does not answer.
	RefusalText

	// What follows is no text, and stands in the list of texts to keep its place.

	modelName    // a name of the model
	tokenDetails // logprobs or token ids: they repeat a text token by token
	channelEnd   // a channel has ended
	leftOut      // a whole event that is concealed
)

var kindNames = [...]string{"other", "text", "reasoning", "arguments", "refusal"}

// String returns a short lower-case name for logs and metrics.
func (k TextKind) String() string { return kindNames[min(int(k), len(kindNames)-1)] }

// Channel is one running text of a response. A stream brings it in pieces, and those of several channels in turn.
type Channel struct {
	Kind   TextKind
	Choice int // 0 where there is one
	Item   int // tells the tool calls, content blocks or output items of a choice apart
	// Path tells apart the members by which texts of one kind come: servers say the same by two of them. It says nothing else.
	Path uint32
	// JSON: the text is the source of JSON, as the arguments of most tool calls are: what is put into a string of it must be
	// escaped. Otherwise it is the value itself, also that of a string in arguments that come as an object.
	JSON bool
}

// noChoice is the Choice of token details that do not stand in one.
const noChoice = -1

// anyItem is the Item of an end that is the end of all items of a choice.
const anyItem = -1

// Text is one JSON string of a response, or one of the things that stand among them.
type Text struct {
	Channel
	// Whole: it does not continue the channel's text. Events that tell at the end what a stream has said repeat it so.
	Whole bool
	Span  Span   // in the response, quotes included
	Event int64  // offset in the response of the event's beginning
	Value []byte // decoded, and as it has been edited
	// Edited: Value is to stand in its place.
	Edited bool
	// Seen and Piece are for screening filters: it was seen before, and of which piece of text it is.
	Seen  bool
	Piece int
}

// Ends reports whether t is the end of a channel.
func (t *Text) Ends(c Channel) bool {
	return t.Kind == channelEnd && t.Choice == c.Choice && (t.Item == anyItem || t.Item == c.Item) &&
		(t.Path == 0 || t.Path == c.Path && c.Kind == OtherText)
}

// choiceSet is a set of choices. Those beyond the last one that it can tell apart are as that one.
type choiceSet [2]uint64

func (s *choiceSet) add(choice int) {
	i := min(uint(choice), 127)
	s[i/64] |= 1 << (i % 64)
}

func (s *choiceSet) remove(choice int) {
	i := min(uint(choice), 127)
	s[i/64] &^= 1 << (i % 64)
}

func (s *choiceSet) has(choice int) bool {
	i := min(uint(choice), 127)
	return s[i/64]>>(i%64)&1 == 1
}

// IsText reports whether t is a text.
func (t *Text) IsText() bool { return t.Kind <= RefusalText }

// frame is an open container.
type frame struct {
	member meaning // by which it stands, or of the array that it is an item of
	within meaning // reasoning, arguments or logprobs: what all in it is
	array  bool
	item   bool // of an array
	items  int  // of an array, so far
	index  int  // its "index", or its place in an array
	output int  // its "output_index"
	part   int  // its "content_index"
	told   bool // index was told
	first  int  // of the texts in it
	start  int64
	path   uint32 // of its name, 0 if that does not tell channels apart
	listed bool   // it is an item of such a container
	delta  bool   // it is in a delta
}

// textReader finds the texts of a response, or of one event after the other, beside the tokens that a responseReader reads.
type textReader struct {
	on     bool
	frames []frame
	key    meaning
	name   uint32 // of the key
	found  []Text
	ready  int  // of found: those of events that are over
	event  int  // of found: the first of the event in progress
	open   bool // a text is being read
	kind   [48]byte
	kindN  int  // length of the event's type in kind
	typing bool // it is being read
	item   int  // that the event reports
	tokens bool // token details that are being read tell some
	// details: some have been told.
	details bool
	full    bool // there were more than textsMost

	choices   choiceSet // that the response has had
	mentioned choiceSet // that the event has
	ahead     choiceSet // their token details have come, and the text has not
	from      int64     // the event that brought the first of them
	running   []Channel // that no name is known for, and the events before have brought

	id    []byte // of the response
	model []byte // that it names
	// told is the one of both that is being read, nil if none is. The first that is told counts.
	told *[]byte
}

// toldMost bounds what of an id or a name is kept.
const toldMost = 256

// textsMost bounds how many texts of a response there may be that have not gone on: each takes more memory than its bytes.
const textsMost = 1 << 16

var errManyTexts = errors.New("the response has too many strings to be screened")

// What a textReader keeps for the next response.
const (
	textsKept = 256
	valueKept = 1 << 10
)

func (t *textReader) reset(on bool) {
	t.on, t.full, t.details = on, false, false
	t.choices, t.ahead, t.running = choiceSet{}, choiceSet{}, t.running[:0]
	t.id, t.model = t.id[:0], t.model[:0]
	t.forget()
	t.begin()
}

// forget drops all texts, and the memory of those that need much.
func (t *textReader) forget() {
	if cap(t.found) > textsKept {
		t.found = nil
	}
	for i, all := 0, t.found[:cap(t.found)]; i < len(all); i++ {
		if cap(all[i].Value) > valueKept {
			all[i].Value = nil
		}
	}
	t.found, t.ready, t.event = t.found[:0], 0, 0
}

// drop forgets the first n texts.
func (t *textReader) drop(n int) {
	kept := len(t.found) - n
	for i := range kept {
		t.found[i], t.found[n+i] = t.found[n+i], t.found[i] // also the memory of those that are dropped stays
	}
	t.found = t.found[:kept]
	t.ready, t.event = t.ready-n, t.event-n
	for i := range t.frames {
		t.frames[i].first -= n
	}
}

// begin makes ready for a document.
func (t *textReader) begin() {
	t.frames, t.key, t.open, t.typing, t.kindN, t.item = t.frames[:0], unknownMember, false, false, 0, 0
	t.told, t.name, t.mentioned, t.tokens = nil, 0, choiceSet{}, false
}

func (t *textReader) openContainer(array bool, start int64) {
	f := frame{member: t.key, array: array, first: len(t.found), start: start, index: 0}
	if n := len(t.frames); n > 0 {
		outer := &t.frames[n-1]
		f.within, f.delta = outer.within, outer.delta || f.member == deltaMember
		if outer.array {
			f.member, f.item, f.index = outer.member, true, outer.items
			f.listed = outer.path != 0 || outer.listed
			outer.items++
		} else if !f.member.wraps() {
			f.path = t.name
		}
	}
	if f.within == unknownMember && (f.member != logprobsMember || t.tellsTokens()) {
		switch f.member {
		case reasoningMember, argumentsMember, logprobsMember:
			f.within = f.member
		}
	}
	t.frames = append(t.frames, f)
	t.key = unknownMember
}

// tellsTokens reports whether token details may stand in the innermost container: a response, a choice, a message or a part of
// one. Elsewhere a member of that name is somebody else's, and its strings are texts.
func (t *textReader) tellsTokens() bool {
	n := len(t.frames)
	if n <= 1 {
		return n == 1
	}
	switch t.frames[n-1].member {
	case choicesMember, messageMember, deltaMember, textMember, outputMember, responseMember, metaMember:
		return !t.frames[n-1].array
	}
	return false
}

func (t *textReader) closeContainer(end int64) {
	n := len(t.frames) - 1
	f := t.frames[n]
	t.frames = t.frames[:n]
	t.key = unknownMember
	if f.within == logprobsMember && t.frames[n-1].within != logprobsMember {
		t.add(Text{Channel: Channel{Kind: tokenDetails, Choice: noChoice}, Whole: !t.tokens, Span: Span{f.start, end}})
		t.details, t.tokens = t.details || t.tokens, false
	}
	if t.place(&f, n == 0); n > 0 {
		return
	}
	if t.item = f.output<<8 | f.part; f.told {
		t.item = f.index
	}
}

// place says of the texts found in a container where they belong.
func (t *textReader) place(f *frame, outermost bool) {
	if f.item && f.member == choicesMember {
		t.choices.add(f.index)
		t.mentioned.add(f.index)
	}
	// Where it stands in a list tells texts apart. Those of one running text may follow each other there.
	listed := f.listed && (f.told || f.member == unknownMember)
	for i := f.first; i < len(t.found); i++ {
		c := &t.found[i].Channel
		if listed && t.found[i].IsText() {
			c.fold(uint32(f.index) + 1)
		}
		if f.path != 0 && t.found[i].IsText() {
			c.fold(f.path)
		}
		switch {
		case f.item && f.member == choicesMember:
			c.Choice = f.index
		case f.item && f.member == callsMember:
			c.Item = f.index
		case f.item && f.member == outputMember:
			c.Item |= f.index << 8
		case f.item && f.member == textMember && c.Kind == ArgumentsText:
			c.Item = f.index // of the content blocks
		case outermost && f.told && c.Item == 0:
			c.Item = f.index
		case outermost && c.Item == 0:
			c.Item = f.output<<8 | f.part
		}
	}
}

// fold makes what stands around a text tell its channel from others.
func (c *Channel) fold(x uint32) { c.Path = (c.Path ^ x) * 16777619 }

// add adds a thing that is no text.
func (t *textReader) add(x Text) {
	if !t.room() {
		return
	}
	value := t.grow()
	*t.last() = x
	t.last().Value = value
}

// room reports whether there may be one more text.
func (t *textReader) room() bool {
	t.full = t.full || len(t.found) >= textsMost
	return !t.full
}

// grow adds an entry, and returns the memory of the value that stood there before.
func (t *textReader) grow() (memory []byte) {
	n := len(t.found)
	if n < cap(t.found) {
		t.found = t.found[:n+1]
		return t.found[n].Value[:0]
	}
	t.found = append(t.found, Text{})
	return nil
}

func (t *textReader) last() *Text { return &t.found[len(t.found)-1] }

func (t *textReader) keyed(name []byte) {
	t.key, t.name = memberOf(name), hash(name)
	t.typing = string(name) == "type" && len(t.frames) == 1
	if t.typing {
		t.kindN = 0
	}
	t.told = nil
	switch {
	case !t.aboutResponse():
	case string(name) == "id" && len(t.id) == 0:
		t.told = &t.id
	case t.key == modelMember && len(t.model) == 0:
		t.told = &t.model
	}
}

// aboutResponse reports whether the innermost container is the response itself: an event of Responses has it as a member.
func (t *textReader) aboutResponse() bool {
	n := len(t.frames)
	return n == 1 || n == 2 && t.frames[1].member == responseMember
}

// kindOf returns what a string here is, and whether it is a text.
func (t *textReader) kindOf() (kind TextKind, whole, text bool) {
	key, n := t.key, len(t.frames)
	if n == 0 {
		return OtherText, true, true
	}
	in := &t.frames[n-1]
	if in.array {
		key = in.member
	}
	switch in.within {
	case logprobsMember:
		return 0, false, false
	case argumentsMember:
		return ArgumentsText, true, true
	case reasoningMember:
		if key == textMember {
			key = reasoningMember
		}
	}
	switch key {
	case textMember:
		return AnswerText, false, true
	case reasoningMember:
		return ReasoningText, false, true
	case argumentsMember:
		return ArgumentsText, false, true
	case refusalMember:
		return RefusalText, false, true
	case deltaMember:
		return OtherText, false, true
	case aboutMember, finishMember, modelMember, indexMember:
		return 0, false, false
	}
	return OtherText, !in.delta, true
}

// inner is what all in the innermost container is.
func (t *textReader) inner() meaning {
	if n := len(t.frames); n > 0 {
		return t.frames[n-1].within
	}
	return unknownMember
}

func (t *textReader) text(piece []byte) {
	t.tokens = t.tokens || t.inner() == logprobsMember
	switch {
	case t.typing:
		t.kindN += copy(t.kind[t.kindN:], piece)
		return
	case t.told != nil:
		*t.told = append(*t.told, piece[:min(len(piece), toldMost-len(*t.told))]...)
		return
	}
	if !t.open {
		kind, whole, is := t.kindOf()
		if !is || !t.room() {
			return
		}
		c := t.channelOf(kind, whole)
		memory := t.grow()
		*t.last() = Text{Channel: c, Whole: whole, Value: memory}
		t.open = true
	}
	t.last().Value = append(t.last().Value, piece...)
}

// beside bounds how many texts of a container are told apart.
const beside = 64

// channelOf returns the channel of a text that begins, as far as what stands in its container says it.
func (t *textReader) channelOf(kind TextKind, whole bool) Channel {
	c := Channel{Kind: kind, JSON: kind == ArgumentsText && !whole && t.name != inputName}
	n := len(t.frames)
	if n == 0 || whole {
		return c
	}
	in := &t.frames[n-1]
	if in.array {
		if kind == OtherText {
			c.fold(uint32(in.items) + 1)
		}
		return c
	}
	if t.key != textMember && t.key != deltaMember {
		c.fold(t.name)
	}
	for i := max(in.first, len(t.found)-beside); i < len(t.found); i++ {
		if t.found[i].Kind == kind && t.found[i].Path == c.Path {
			c.Path++ // two texts in one container do not continue each other
		}
	}
	return c
}

// textEnd ends a string, which stands at a span of the response.
func (t *textReader) textEnd(span Span, model bool) {
	switch {
	case t.open:
		t.last().Span = span // an empty string is no text
	case model:
		t.add(Text{Channel: Channel{Kind: modelName}, Span: span})
	case t.key == finishMember && t.inner() == unknownMember:
		t.add(Text{Channel: Channel{Kind: channelEnd, Item: anyItem}, Span: span})
	}
	if n := len(t.frames); n > 0 && t.frames[n-1].array {
		t.frames[n-1].items++
	}
	t.open, t.typing, t.told, t.key = false, false, nil, unknownMember
}

func (t *textReader) number(raw []byte) {
	t.tokens = t.tokens || t.inner() == logprobsMember && raw[0] != 'n'
	if n := len(t.frames); n > 0 && raw[0]-'0' <= 9 {
		f, v := &t.frames[n-1], min(count(raw), 1<<20)
		switch t.key {
		case indexMember:
			f.index, f.told = v, true
		case outputIndexMember:
			f.output = v
		case contentIndexMember:
			f.part = v
		}
	}
	t.key = unknownMember
}

var (
	deltaSuffix = []byte(".delta")
	doneSuffix  = []byte(".done")
)

// endDocument ends a response, or the event that begins at an offset in it.
func (t *textReader) endDocument(api API, at int64) {
	kind := t.kind[:t.kindN]
	if api == Responses {
		t.typeDeltas(kind)
	}
	if string(kind) == "content_block_stop" || bytes.HasSuffix(kind, doneSuffix) {
		t.add(Text{Channel: Channel{Kind: channelEnd, Item: t.item}})
	}
	t.endRunning(api)
	at = t.join(at)
	for i := t.event; i < len(t.found); i++ {
		t.found[i].Event = at
	}
	t.ready, t.event = len(t.found), len(t.found)
}

// join returns where an event begins that begins at an offset. One that has token details of a choice and no text of it, and
// all up to the one that brings the text, are as one: the details do not go before the text was seen.
func (t *textReader) join(at int64) int64 {
	if t.ahead == (choiceSet{}) {
		t.from = at
	}
	at = t.from
	event := t.found[t.event:]
	for i := range event {
		if x := &event[i]; x.Kind == tokenDetails && !x.Whole {
			t.ahead.add(max(x.Choice, 0))
		}
	}
	for i := range event {
		if x := &event[i]; x.IsText() || x.Kind == channelEnd {
			t.ahead.remove(x.Choice)
		}
	}
	return at
}

// boundary returns the offset up to which events may go on of which those before an offset are over.
func (t *textReader) boundary(at int64) int64 {
	if t.ahead != (choiceSet{}) {
		return min(at, t.from)
	}
	return at
}

// runningMost bounds how many running texts of unknown members there may be.
const runningMost = 32

// endRunning ends the running texts of unknown members that an event about their choice does not bring: nothing else says
// where they end.
func (t *textReader) endRunning(api API) {
	kept := t.running[:0]
	texts := t.found[t.event:]
	for _, c := range t.running {
		about := t.mentioned.has(c.Choice) || api == Messages && t.item == c.Item
		if !about || slices.ContainsFunc(texts, func(x Text) bool { return x.Channel == c }) {
			kept = append(kept, c)
			continue
		}
		t.add(Text{Channel: Channel{Kind: channelEnd, Choice: c.Choice, Item: c.Item, Path: c.Path}})
	}
	t.running = kept
	for i := range texts {
		x := &texts[i]
		if x.Kind != OtherText || x.Whole || x.Path == 0 || slices.Contains(t.running, x.Channel) {
			continue
		}
		if len(t.running) == runningMost {
			x.Whole = true
			continue
		}
		t.running = append(t.running, x.Channel)
	}
}

// typeDeltas says what the texts of an event of Responses are. Only those of deltas run on.
func (t *textReader) typeDeltas(kind []byte) {
	delta := bytes.HasSuffix(kind, deltaSuffix)
	for i := t.event; i < len(t.found); i++ {
		x := &t.found[i]
		if !x.IsText() {
			continue
		}
		if x.Whole = !delta || x.Whole; x.Kind != OtherText || x.Whole || x.Path != 0 {
			continue
		}
		switch {
		case bytes.Contains(kind, []byte("output_text")):
			x.Kind = AnswerText
		case bytes.Contains(kind, []byte("reasoning")):
			x.Kind = ReasoningText
		case bytes.Contains(kind, []byte("refusal")):
			x.Kind = RefusalText
		default: // of the arguments or the input of some kind of tool
			x.Kind, x.JSON = ArgumentsText, bytes.Contains(kind, []byte("arguments"))
		}
	}
}
