package llm

// maxHeld bounds what of an event is held back. A usage is far shorter.
const maxHeld = 16 << 10

// concealed is what a ResponseScanner needs to leave events out.
type concealed struct {
	held []byte // of the event in progress: it may have to be left out. Names in it are restored.
	out  []Span // of the events that ended in the chunk and are left out
	lf   bool   // the last one ended with CR: a LF right after it belongs to it
}

func (c *concealed) reset() { *c = concealed{held: c.held[:0], out: c.out[:0]} }

// sole is whether an event has nothing but the usage: "choices" with nothing in it.
type sole uint8

const (
	undecided sole = iota
	noChoices      // so far "choices" is an empty list
	otherwise      // it is another event
)

// Conceal has events left out of a stream that have nothing but the usage, as servers send them to those who ask with
// stream_options.include_usage. Said after Reset, before Feed.
//
// Until it is known that an event is another one, which is as soon as it has a choice, its bytes are held back: those of an event that
// a chunk cuts before. Rest has what is held at the end.
func (r *ResponseScanner) Conceal() { r.reader.conceals = r.stream }

// Conceals reports whether Conceal was said of a stream.
func (r *ResponseScanner) Conceals() bool { return r.reader.conceals }

// Rest returns what was held back of the last event, once. After End it is an event that the stream's end has cut.
func (r *ResponseScanner) Rest() []byte {
	rest := r.held
	r.held = r.held[:0]
	return rest
}

// openChoices takes a container that opens in the place p. It reports whether that is the list of choices.
func (r *responseReader) openChoices(p place, array bool, depth int) bool {
	switch {
	case p == atChoices && array && r.sole != otherwise:
		r.sole, r.at[depth-1] = noChoices, inChoices
		return true
	case p == atChoices, depth > 1 && depth-2 < len(r.at) && r.at[depth-2] == inChoices:
		r.sole = otherwise
	}
	return false
}

// valueOfChoices takes a value that is no container.
func (r *responseReader) valueOfChoices() {
	if r.next == atChoices || r.place() == inChoices {
		r.sole = otherwise
	}
}

// onlyUsage reports whether the event, which is over, has nothing but the usage.
func (r *responseReader) onlyUsage() bool {
	const usage = 1<<atPrompt | 1<<atCompletion | 1<<atTotal
	return r.sole == noChoices && r.event.told&usage != 0
}

// leaveOut leaves out the event that has just ended; whole: with an empty line, and not with the stream.
func (r *ResponseScanner) leaveOut(whole bool) {
	end := r.events.Boundary()
	if !whole {
		end = r.fed
		r.held = r.held[:0]
	}
	if r.reader.texts.on {
		r.reader.texts.leaveOut(Span{r.at, end})
		return
	}
	r.out = append(r.out, Span{r.at, end})
}

// leaveOut has an event in the place of all that was found in it.
func (t *textReader) leaveOut(event Span) {
	t.found = t.found[:t.event]
	t.add(Text{Channel: Channel{Kind: leftOut}, Span: event})
}

// conceal adds to with what is to stand in the place of the first n bytes of chunk, which stands at base in the answer.
func (r *ResponseScanner) conceal(chunk []byte, base int64) (n int) {
	hold := r.holdFrom(chunk, base)
	if len(r.held)+len(r.out) == 0 && hold == len(chunk) && !r.lf {
		return r.restore(chunk, base, 0)
	}
	at := r.afterLeftOut(chunk)
	if hold > 0 {
		// The event of which some is held is over, or known.
		if len(r.out) == 0 || r.out[0].Start >= base {
			r.with = append(r.with, r.held...)
		}
		r.held = r.held[:0]
	}
	for _, event := range r.out {
		start, end := max(int(event.Start-base), 0), int(event.End-base)
		r.pass(chunk[:start], base, at)
		r.noteLeftOut(chunk[:end])
		at = end + r.afterLeftOut(chunk[end:])
	}
	r.out = r.out[:0]
	r.pass(chunk[:hold], base, at)
	passed := len(r.with)
	r.pass(chunk, base, max(hold, at))
	r.held = append(r.held, r.with[passed:]...)
	r.with = r.with[:passed]
	return len(chunk)
}

// pass adds chunk[from:] to with, with the names restored.
func (r *ResponseScanner) pass(chunk []byte, base int64, from int) {
	if from < len(chunk) {
		from = r.restore(chunk, base, from)
		r.with = append(r.with, chunk[from:]...)
	}
}

// holdFrom returns from where on the bytes of a chunk are held back.
func (r *ResponseScanner) holdFrom(chunk []byte, base int64) int {
	start := r.events.Boundary()
	if start >= r.fed || r.reader.sole == otherwise || r.marker > 0 || r.ended {
		return len(chunk)
	}
	from := max(int(start-base), 0)
	if len(r.held)+len(chunk)-from > maxHeld {
		r.reader.sole = otherwise
		return len(chunk)
	}
	return from
}

// noteLeftOut notes how what was left out has ended.
func (r *ResponseScanner) noteLeftOut(what []byte) { r.lf = what[len(what)-1] == '\r' }

// afterLeftOut returns how many bytes of what follows belong to what was left out before.
func (r *ResponseScanner) afterLeftOut(next []byte) int {
	if !r.lf || len(next) == 0 {
		return 0
	}
	if r.lf = false; next[0] == '\n' {
		return 1
	}
	return 0
}
