package chain

import "github.com/inlet-proxy/inlet/shared/reading/llm"

// askUsage has the replica asked for its usage, if the client has not asked.
func (s *Stream) askUsage() {
	span, with, ok := s.x.Request.AskUsage()
	if ok {
		s.x.ReplaceInBody(span, with)
		s.asked = true
	}
}

// conceal has a scanner of the response leave out what only comes since the chain has asked.
func (s *Stream) conceal(r *llm.ResponseScanner) {
	if s.asked {
		r.Conceal()
	}
}

// withRest adds to what goes on at the end of a response what of it was held back.
func (s *Stream) withRest(with []byte) []byte {
	if !s.response.Conceals() {
		return with
	}
	s.response.End()
	return append(with, s.response.Rest()...)
}
