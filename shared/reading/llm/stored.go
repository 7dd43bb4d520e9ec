package llm

// storedReader finds references to what the server has of a conversation, which is not in the body.
type storedReader struct {
	names bool // the value that follows names such a thing, if it has one
	id    bool // the item of an input that is being read has an ID
	more  bool // ... and anything besides that and its type
}

// storedKey takes the name of a member.
func (r *requestReader) storedKey(name []byte) {
	s := &r.stored
	s.names = false
	switch depth := r.json.Depth(); {
	case depth == 1:
		s.names = r.members.has(memberEarlier) && (string(name) == "previous_response_id" || string(name) == "conversation" || string(name) == "prompt")
	case depth != messageDepth:
	case r.member == memberMessages:
		s.names = string(name) == "audio" // what the model has said before
	case string(name) == "id":
		s.id = true
	case string(name) != "type":
		s.more = true
	}
}

// storedValue takes a value, or the first of one.
func (r *requestReader) storedValue() {
	r.facts.Earlier = r.facts.Earlier || r.stored.names
	r.stored.names = false
}

// storedType takes the type of an item.
func (r *requestReader) storedType(word []byte) {
	if r.readsItems() && string(word) == "item_reference" {
		r.facts.Earlier = true
	}
}

// storedItem is for the end of an item: one that has nothing but an ID is a reference, also without a type that says so.
func (r *requestReader) storedItem() {
	s := &r.stored
	r.facts.Earlier = r.facts.Earlier || r.readsItems() && s.id && !s.more
	s.id, s.more = false, false
}

// readsItems reports whether it is the items of an input that are being read.
func (r *requestReader) readsItems() bool {
	return r.member == memberInput && r.members.has(memberEarlier)
}
