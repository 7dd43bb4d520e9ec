package llm

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// Engines keep what they have computed for a prompt in blocks of tokens, and use it again for another prompt as far as both begin with
// the same blocks. Prefix hashes let a gateway tell which prompts do without keeping them: number i stands for everything up to the end
// of block i, so two prompts that agree in it agree in all before.
const (
	// PrefixBlockBytes is the size of a block in bytes of prompt text, about [PrefixBlockTokens]. It is a multiple of the blocks of
	// engines (16 tokens and more) and as short as pays: what is shared beyond the last full block is not seen.
	PrefixBlockBytes  = 256
	PrefixBlockTokens = 64

	// DefaultPrefixBlocks is how many blocks are hashed unless Want says otherwise: 512 KiB of text, about 128k tokens.
	DefaultPrefixBlocks = 2048

	// mediaWeight is for how many of its hashes' bytes an image or a file counts: four blocks, about what a small picture costs.
	mediaWeight = 4 * PrefixBlockBytes / 8
)

// Bytes that do not occur in well-formed UTF-8 stand between what were different values, so that "ab", "c" is not "a", "bc".
const (
	endOfText  = 0xff - iota
	endOfToken // or of a number or literal of JSON
	endOfMedia
	endOfKey
	beginOf // an object or an array, where its structure is part of the prompt
	endOf
	endOfTurn
)

// billing is how the text of a block begins that Claude Code puts before its system prompt. It has another hash each turn; vLLM does
// not show it to the model (PR 36829).
var billing = []byte("x-anthropic-billing-header")

// hasPrefixes says for which APIs engines keep prefixes: those that generate text.
var hasPrefixes = [...]bool{Chat: true, Completions: true, Responses: true, Messages: true, Models: false}

// A prompt begins with the tools and the system prompt, as chat templates lay it out, whatever the order of the members in the body. So
// each of its stretches is hashed separately as it arrives, and they are chained in the order of the prompt at the end.
const (
	noStretch = iota
	stretchTools
	stretchSystem
	stretchTalk   // the conversation, or the text to go on with
	stretchSuffix // what stands behind the place to fill
	stretches
)

// stretchOf says of which stretch a member's text is a part.
var stretchOf = [...]uint8{
	memberTools:        stretchTools,
	memberSystem:       stretchSystem,
	memberInstructions: stretchSystem,
	memberMessages:     stretchTalk,
	memberPrompt:       stretchTalk,
	memberInput:        stretchTalk,
	memberTokens:       stretchTalk,
	memberSuffix:       stretchSuffix,
	memberText:         noStretch,
}

// comesBefore says before which stretch a member counts that is not itself text of the prompt, but changes what a chat template makes of
// it from there on.
var comesBefore = [...]uint8{
	memberTemplate:     stretchTools,
	memberTemplateArgs: stretchTools,
	memberShape:        stretchTools,
	memberEffort:       stretchTools,
	memberEarlier:      stretchTalk,
	memberText:         noStretch,
}

// stretch is a part of a prompt. It holds at most one block of it.
type stretch struct {
	hashes []uint64 // of its full blocks, each by itself
	before uint64   // sum of the hashes of what counts before it, in any order
	block  [PrefixBlockBytes]byte
	n      int // bytes in block
}

// prefixer hashes what a model reads as it arrives. The result does not depend on the pieces.
type prefixer struct {
	stretches [stretches]stretch
	chain     []uint64
	limit     int // blocks

	at     *stretch // of the member that is being read
	shapes *stretch // nil, or the stretch before which this member counts: all of it is one value, in sum
	filled bool     // ... and it has a value
	whole  bool     // the member's JSON is in the prompt, names and structure included
	mute   int      // depth of the object of which a member is being left out; 0 for none

	text    bool // the value that is being read has had text
	matched int  // it began with so many bytes of billing, which are held back
	dropped bool // it is a billing block
	media   int  // so many bytes of an image or a file
	sum     xxhash.Digest
	one     [1]byte

	fromBlock, fromByte int    // where in its stretch the message begins that is being read
	held                uint64 // hash of the billing texts in it, which count if it turns out not to be a system message
}

func (p *prefixer) reset(limit int) {
	p.limit = limit
	for i := range p.stretches {
		s := &p.stretches[i]
		s.hashes, s.before, s.n = s.hashes[:0], 0, 0
	}
	p.at, p.shapes, p.filled, p.whole, p.mute = nil, nil, false, false, 0
	p.text, p.matched, p.dropped, p.media = false, 0, false, 0
}

// begin begins a top-level member, and reports whether anything in it counts.
func (p *prefixer) begin(m member, name []byte) bool {
	p.endShape()
	if at := comesBefore[m]; at != noStretch {
		p.shapes, p.whole = &p.stretches[at], true
		p.sum.Reset()
		_, _ = p.sum.Write(name) // never fails
		p.mark(endOfKey)
		p.filled = false
		return true
	}
	at := stretchOf[m]
	p.at, p.whole = &p.stretches[at], m == memberTools
	return at != noStretch
}

// endShape ends a member that counts before a stretch. An empty one is as none.
func (p *prefixer) endShape() {
	if p.shapes != nil && p.filled {
		p.shapes.before += p.sum.Sum64()
	}
	p.shapes, p.filled = nil, false
}

// write adds a piece of text.
func (p *prefixer) write(b []byte) {
	p.text = true
	p.append(b)
}

// writeBlock adds a piece of the text of a block that is left out if it is a billing block.
func (p *prefixer) writeBlock(b []byte) {
	if p.dropped {
		_, _ = p.sum.Write(b) // never fails
		return
	}
	if !p.text {
		n := 0
		for n < len(b) && b[n] == billing[p.matched] {
			n++
			if p.matched++; p.matched == len(billing) {
				p.dropped = true
				p.sum.Reset()
				_, _ = p.sum.Write(b[n:]) // never fails
				return
			}
		}
		if n == len(b) {
			return
		}
		if p.matched > 0 {
			p.release()
		}
		b = b[n:]
	}
	p.write(b)
}

// release adds what was held back, unless it is to be left out.
func (p *prefixer) release() {
	if p.dropped {
		p.held = chained(p.held, p.sum.Sum64())
	} else {
		p.write(billing[:p.matched])
	}
	p.matched, p.dropped = 0, false
}

// beginTurn begins a message.
func (p *prefixer) beginTurn() {
	p.fromBlock, p.fromByte, p.held = len(p.at.hashes), p.at.n, 0
}

// endTurn ends a message, whose role may be told behind its content. The role counts from the block on in which the message begins, so
// that it makes no difference where in the message it stands.
func (p *prefixer) endTurn(role []byte) {
	s := p.at
	if p.held != 0 { // its place has passed; this tells it apart from the first block on
		s.before += chained(p.held, uint64(p.fromBlock)*PrefixBlockBytes+uint64(p.fromByte))
	}
	if p.fromBlock < len(s.hashes) {
		s.hashes[p.fromBlock] = chained(s.hashes[p.fromBlock], xxhash.Sum64(role))
		return
	}
	p.append(role)
	p.mark(endOfTurn)
}

// endSystemTurn ends a system message that servers leave out if it is empty without its billing texts.
func (p *prefixer) endSystemTurn(role []byte) {
	p.held = 0
	if p.fromBlock != len(p.at.hashes) || p.fromByte != p.at.n {
		p.endTurn(role)
	}
}

// append adds bytes. Blocks that lie in b are hashed there.
func (p *prefixer) append(b []byte) {
	if p.shapes != nil {
		p.filled = true
		_, _ = p.sum.Write(b) // never fails
		return
	}
	s := p.at
	if s.n > 0 {
		n := copy(s.block[s.n:], b)
		s.n += n
		if b = b[n:]; s.n < PrefixBlockBytes {
			return
		}
		s.add(s.block[:], p.limit)
		s.n = 0
	}
	for len(b) >= PrefixBlockBytes {
		s.add(b[:PrefixBlockBytes], p.limit)
		b = b[PrefixBlockBytes:]
	}
	s.n = copy(s.block[:], b)
}

// mark adds one byte that stands between values.
func (p *prefixer) mark(c byte) {
	s := p.at
	if p.shapes != nil || s.n == PrefixBlockBytes-1 {
		p.one[0] = c
		p.append(p.one[:])
		return
	}
	s.block[s.n] = c
	s.n++
}

// add ends a block.
func (s *stretch) add(block []byte, limit int) {
	if len(s.hashes) < limit {
		s.hashes = append(s.hashes, xxhash.Sum64(block))
	}
}

// finish chains the blocks in the order of the prompt. What is left of a stretch beyond its last full block counts with the first block
// of the next one.
func (p *prefixer) finish() []uint64 {
	p.endShape()
	p.chain = p.chain[:0]
	var h uint64
	var last *stretch
	for i := range p.stretches {
		s := &p.stretches[i]
		if s.before != 0 {
			h = chained(h, s.before)
		}
		if len(s.hashes) == 0 && s.n == 0 {
			continue
		}
		if last != nil {
			h = chained(h, xxhash.Sum64(last.block[:last.n]))
		}
		last, h = s, chained(h, uint64(i)) // the same text is another prompt in another stretch
		for _, block := range s.hashes {
			if len(p.chain) == p.limit {
				return p.chain
			}
			h = chained(h, block)
			p.chain = append(p.chain, h)
		}
	}
	return p.chain
}

// chained makes the hash of a block that of everything up to it. Multiplying by an odd number keeps all that the earlier hash tells, and
// turning it keeps equal blocks from cancelling each other out.
func chained(before, block uint64) uint64 {
	h := before*0x9e3779b97f4a7c15 ^ block
	return h ^ h>>32
}

// writeMedia adds a piece of an image or a file: it enters the prompt by its hash.
func (p *prefixer) writeMedia(b []byte) {
	if p.media == 0 {
		p.sum.Reset()
	}
	p.media += len(b)
	_, _ = p.sum.Write(b) // never fails
}

// writeToken adds a token that is sent as a number, or a number or literal of JSON.
func (p *prefixer) writeToken(number []byte) {
	p.append(number)
	p.mark(endOfToken)
}

// writeKey adds the name of a member of JSON.
func (p *prefixer) writeKey(name []byte) {
	p.append(name)
	p.mark(endOfKey)
}

// end says that a value is complete.
func (p *prefixer) end() {
	if p.matched > 0 {
		p.release()
	}
	if p.text || p.whole {
		p.mark(endOfText)
	}
	if p.media > 0 {
		p.endMedia()
	}
	p.text, p.media = false, 0
}

// endMedia adds the hash of an image or a file. Short values are none, but say something of one: a format, a size.
func (p *prefixer) endMedia() {
	const shortest = 24 // bytes of a URL or of data
	times := 1
	if p.media >= shortest {
		times = mediaWeight
	}
	var sum [8]byte
	binary.LittleEndian.PutUint64(sum[:], p.sum.Sum64())
	for range times {
		p.append(sum[:])
	}
	p.mark(endOfMedia)
}

// counts reports whether the value that is being read is part of the prefix.
func (r *requestReader) counts() bool {
	return r.hashing && (r.prefix.mute == 0 || r.json.Depth() < r.prefix.mute)
}

// inJSON reports whether it is part of JSON that the model reads as such: of a tool, or of what a call was made with.
func (r *requestReader) inJSON() bool {
	return r.counts() && (r.prefix.whole || r.prompt.free != 0 && r.json.Depth() > r.prompt.free)
}

// isBlock reports whether the text that is being read is left out if it is a billing text, in the API that has such: a block of the system
// prompt, or the text or a block of what is a system message, or of which it has not been said yet what it is.
func (r *requestReader) isBlock() bool {
	if r.facts.API != Messages {
		return false
	}
	p, depth := &r.prompt, r.json.Depth()
	switch {
	case r.member == memberSystem:
		return p.key == keyPart && depth == messageDepth
	case r.member != memberMessages || p.role.known && !p.role.is(system):
		return false
	}
	return p.key == keyPart && depth == messageDepth+2 || p.key == keyParts && depth == messageDepth
}

// prefixTurn takes the begin or the end of an object that may be a message.
func (r *requestReader) prefixTurn(begins bool) {
	switch role := &r.prompt.role; {
	case r.member != memberMessages && r.member != memberInput:
	case begins:
		r.prefix.beginTurn()
	case r.facts.API == Messages && role.is(system):
		r.prefix.endSystemTurn(role.text())
	default:
		r.prefix.endTurn(role.text())
	}
}

// prefixKey takes the name of a member. Servers take marks for a provider's own cache out, which move on with each turn.
func (r *requestReader) prefixKey(name []byte) {
	p, depth := r.prefix, r.json.Depth()
	if depth <= p.mute {
		p.mute = 0
	}
	if p.mute != 0 {
		return
	}
	if r.member == memberEffort && depth == effortDepth {
		if string(name) != "effort" {
			p.mute = depth
		}
		return
	}
	isPart := r.prompt.free == 0 || p.whole && p.shapes == nil && depth == messageDepth
	switch {
	case isPart && string(name) == "cache_control":
		p.mute = depth
	case r.inJSON():
		p.writeKey(name)
	}
}

// prefixMark takes the begin or the end of a container of this depth. The outermost does not count: an empty one is as none.
func (r *requestReader) prefixMark(mark byte, depth int) {
	if depth > 2 && r.inJSON() {
		r.prefix.mark(mark)
	}
	if mark == endOf && depth <= r.prefix.mute {
		r.prefix.mute = 0
	}
}
