package chain

import (
	"errors"
	"strconv"

	"github.com/inlet-proxy/inlet/internal/coding"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/formscan"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// keepEncoded is the size up to which a Stream keeps the memory of one encoded body for the next.
const keepEncoded = 64 << 10

// encodedBody is a request body that came in a content coding. It is kept until its end and then decoded; what goes on to
// the replica is what was read, decoded: model servers do not decode bodies, and nobody can read another thing in it.
type encodedBody struct {
	coding  coding.Coding
	encoded []byte
	decoded []byte
}

// is reports whether the body is encoded.
func (b *encodedBody) is() bool { return b.coding != coding.Identity }

func (b *encodedBody) reset() {
	b.coding = coding.Identity
	for _, memory := range []*[]byte{&b.encoded, &b.decoded} {
		if *memory = (*memory)[:0]; cap(*memory) > keepEncoded {
			*memory = nil
		}
	}
}

// scans reports whether the body of the request is scanned.
func (s *Stream) scans() bool {
	return s.x.API != llm.Models && s.c.needs&(filter.NeedRequest|filter.NeedModel) != 0
}

// prepareBody readies the scanner for the body that the headers announce, or refuses it by them.
func (s *Stream) prepareBody() *filter.Refusal {
	h := s.x.RequestHeaders
	s.length = -1
	v, sized := h.Get("content-length")
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		s.length = n
	}
	if s.length > s.c.bodyLimit {
		return refuseTooLarge(s.c.bodyLimit)
	}
	if s.scans() {
		s.body = bodyRead
		s.timing.begin(s.c.deps)
		if v, _ := h.Get("content-encoding"); v != "" {
			var ok bool
			if s.encoded.coding, ok = coding.Parse(v); !ok {
				return refuseEncoding(v)
			}
		}
		if s.c.early && !s.encoded.is() && sized == (s.length >= 0) {
			s.body = bodyReadPassing
		}
		if s.x.API.TakesForm() {
			return s.prepareForm()
		}
	}
	s.request.Reset(s.x.API, s.want(), s.c.jsonLimits)
	return nil
}

// prepareForm readies the scanner for a body that may be a form. Servers use the content type, so here it must be right.
func (s *Stream) prepareForm() *filter.Refusal {
	contentType, _ := s.x.RequestHeaders.Get("content-type")
	boundary, form, ok := formscan.Boundary(contentType)
	switch {
	case form && ok:
		s.request.ResetForm(s.x.API, s.want(), s.c.jsonLimits, boundary)
	case form:
		return badRequest("invalid_multipart", "", "The content type multipart/form-data needs one plain boundary.")
	case contentType == "" || isJSON(contentType):
		s.request.Reset(s.x.API, s.want(), s.c.jsonLimits)
	default:
		return refuseMediaType()
	}
	return nil
}

// scan takes the next bytes of the body.
func (s *Stream) scan(chunk []byte) *filter.Refusal {
	if s.encoded.is() {
		s.encoded.encoded = append(s.encoded.encoded, chunk...)
		return nil
	}
	return s.feed(chunk)
}

// feed scans bytes of the body.
func (s *Stream) feed(bytes []byte) *filter.Refusal {
	start := s.clock()
	err := s.request.Feed(bytes)
	s.timing.scan += s.since(start)
	if err != nil {
		return s.refuseBody(err)
	}
	return nil
}

// endScan reads what is left when the body is complete.
func (s *Stream) endScan() *filter.Refusal {
	if b := &s.encoded; b.is() {
		start := s.clock()
		var err error
		b.decoded, err = coding.Append(b.decoded[:0], b.coding, b.encoded, s.c.bodyLimit)
		s.timing.scan += s.since(start)
		switch {
		case errors.Is(err, coding.ErrTooLarge):
			return refuseTooLarge(s.c.bodyLimit)
		case err != nil:
			return badRequest("invalid_content_encoding", "", "The body is not what its content-encoding says: "+err.Error()+".")
		}
		if r := s.feed(b.decoded); r != nil {
			return r
		}
	}
	if err := s.request.End(); err != nil {
		return s.refuseBody(err)
	}
	return s.repeated()
}

// repeated refuses a body in which a member that is read stands twice.
func (s *Stream) repeated() *filter.Refusal {
	if key := s.x.Request.Repeated; key != "" {
		return refuseRepeated(key)
	}
	return nil
}

// sendDecoded turns the edits of the decoded body, in order, into one edit that replaces the encoded one.
func (s *Stream) sendDecoded() {
	e, b := s.x.Effects(), &s.encoded
	body := b.decoded
	if len(e.Body) > 0 {
		b.encoded = filter.Splice(b.encoded[:0], b.decoded, e.Body) // its bytes are not needed any more
		body = b.encoded
	}
	e.Body = append(e.Body[:0], filter.BodyEdit{Span: llm.Span{Start: 0, End: s.bodyBytes}, With: body})
	s.x.RemoveRequestHeader("content-encoding")
}

func (s *Stream) want() llm.Want {
	want := llm.Want{
		Prompt:      s.c.needs.Has(filter.NeedPrompt),
		PromptLimit: int(s.c.promptLimit),
		Strings:     s.c.needs.Has(filter.NeedStrings),
		Fields:      s.c.fields,
	}
	if s.c.needs.Has(filter.NeedPrefix) {
		want.PrefixBlocks = int(s.c.prefixLimit / llm.PrefixBlockBytes)
	}
	return want
}
