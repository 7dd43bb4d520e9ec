package chain

import "github.com/inlet-proxy/inlet/shared/contract/filter"

// Kept returns how many bytes of bodies the stream has memory for.
func (s *Stream) Kept() int {
	n := cap(s.encoded.encoded) + cap(s.encoded.decoded)
	edits := s.x.Effects().Body
	for _, e := range edits[:cap(edits)] {
		n += cap(e.With)
	}
	return n
}

// Exchange is what the filters see.
func (s *Stream) Exchange() *filter.Exchange { return &s.x }

// Spoil has a defect befall the screening of a response.
func (s *Stream) Spoil() { s.screen.base -= 1000 }
