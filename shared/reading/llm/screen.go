package llm

import "errors"

// Screen has the scanner find the texts of the response, see Texts. Said after Reset, before Feed. Feed then says no more what to
// put where the model's name stands: Splice does.
func (r *ResponseScanner) Screen() { r.reader.texts.reset(true) }

// StopTexts ends what Screen began: from here on only the usage is read, and the model's name as Feed has it. A name that is
// being read stays as it is. No texts are kept.
func (r *ResponseScanner) StopTexts() {
	if !r.reader.texts.on {
		return
	}
	r.reader.texts.found = nil
	r.reader.texts.forget()
	r.reader.texts.on, r.reader.texts.ahead = false, choiceSet{}
	r.reader.conceals = false
	if r.json.InText() {
		r.reader.next = nowhere
	}
}

// Release drops the texts, and the memory of those that need much. What is known of the response stays. It is for a response
// that is over: what is read of an event in progress is lost.
func (r *ResponseScanner) Release() { r.reader.texts.forget() }

// Texts are the texts of those events that are over, or of a JSON document that is over, in order, and of other things that
// stand among them. They stay until they are dropped. Value, and what is for screening filters, may be changed.
func (r *ResponseScanner) Texts() []Text {
	t := &r.reader.texts
	return t.found[:t.ready]
}

// ID returns the id of a screened response, "" if it was not told.
func (r *ResponseScanner) ID() string { return string(r.reader.texts.id) }

// Unshown reports whether the response has said what Texts does not show: token details, or anything unusual in lines of an event
// stream that are no data.
func (r *ResponseScanner) Unshown() bool {
	return r.reader.texts.details || r.stream && r.events.Unusual()
}

// Drop forgets the first n of Texts.
func (r *ResponseScanner) Drop(n int) { r.reader.texts.drop(n) }

// Boundary returns the offset in the response up to which events are over; of a JSON document all or nothing is.
func (r *ResponseScanner) Boundary() int64 {
	switch {
	case r.stream:
		return r.reader.texts.boundary(r.events.Boundary())
	case r.over:
		return r.fed
	}
	return 0
}

// Splice appends a piece of a screened response to dst, with the edits made. The piece stands at an offset in the response,
// and texts are those in it.
//
// From the first edit of a choice's text on its token details are null, those in what is still withheld too: they repeat the
// text, and a server may tell a token before or after its text.
func (r *ResponseScanner) Splice(dst, piece []byte, at int64, texts []Text) []byte {
	r.noteEdits(texts)
	r.noteEdits(r.Texts())
	n := r.afterLeftOut(piece)
	piece, at = piece[n:], at+int64(n)
	for i := range texts {
		t := &texts[i]
		if t.Kind == channelEnd && t.Item == anyItem {
			r.finished.add(t.Choice)
		}
		if t.Span.Start < at || !r.changes(t) {
			continue // what begins in a span that was replaced went with it
		}
		dst = append(dst, piece[:t.Span.Start-at]...)
		before := piece[t.Span.Start-at : t.Span.End-at]
		piece, at = piece[t.Span.End-at:], t.Span.End
		switch t.Kind {
		case modelName:
			dst = append(dst, r.model...)
		case tokenDetails:
			dst = append(dst, "null"...)
		case leftOut:
			r.noteLeftOut(before)
			n := r.afterLeftOut(piece)
			piece, at = piece[n:], at+int64(n)
		default:
			dst = appendEdited(dst, t.Value, before)
		}
	}
	return append(dst, piece...)
}

// noteEdits notes whose text was edited.
func (r *ResponseScanner) noteEdits(texts []Text) {
	for i := range texts {
		if t := &texts[i]; t.Edited && t.IsText() {
			r.edited.add(t.Choice)
		}
	}
}

// changes reports whether something else is put in the place of t.
func (r *ResponseScanner) changes(t *Text) bool {
	switch t.Kind {
	case leftOut:
		return true
	case modelName:
		return len(r.model) > 0
	case tokenDetails:
		return r.edited.has(t.Choice) || t.Choice == noChoice && r.edited != (choiceSet{})
	}
	return t.Edited
}

// endTexts ends a document of which the texts are read.
func (r *ResponseScanner) endTexts() {
	if !r.reader.texts.on {
		return
	}
	if r.json.Unread() {
		r.fail(errDeep)
	}
	r.reader.texts.endDocument(r.reader.api, r.at)
}

var errDeep = errors.New("the response has containers too deep to be read")
