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
var (
	endOfText  = []byte{0xff}
	endOfToken = []byte{0xfe}
	endOfMedia = []byte{0xfd}
)

// hasPrefixes says for which APIs engines keep prefixes: those that generate text.
var hasPrefixes = [...]bool{Chat: true, Completions: true, Responses: true, Messages: true, Models: false}

// prefixer hashes what a model reads, as it comes. It holds at most one block of it. The result does not depend on the pieces.
type prefixer struct {
	chain []uint64
	limit int // blocks

	block [PrefixBlockBytes]byte
	n     int // bytes in block

	text  bool // the value that is being read has had text
	media int  // ... and so many bytes of an image or a file
	sum   xxhash.Digest
}

func (p *prefixer) reset(limit int) {
	p.chain, p.limit, p.n, p.text, p.media = p.chain[:0], limit, 0, false, 0
}

// write adds a piece of text.
func (p *prefixer) write(b []byte) {
	p.text = true
	p.append(b)
}

// append adds bytes. Blocks that lie in b are hashed there.
func (p *prefixer) append(b []byte) {
	if p.n > 0 {
		n := copy(p.block[p.n:], b)
		p.n += n
		if b = b[n:]; p.n < PrefixBlockBytes {
			return
		}
		p.add(p.block[:])
		p.n = 0
	}
	for len(b) >= PrefixBlockBytes {
		p.add(b[:PrefixBlockBytes])
		b = b[PrefixBlockBytes:]
	}
	p.n = copy(p.block[:], b)
}

// add ends a block.
func (p *prefixer) add(block []byte) {
	if len(p.chain) >= p.limit {
		return
	}
	h := xxhash.Sum64(block)
	if k := len(p.chain); k > 0 {
		h = chained(p.chain[k-1], h)
	}
	p.chain = append(p.chain, h)
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

// writeToken adds a token that is sent as a number.
func (p *prefixer) writeToken(number []byte) {
	p.append(number)
	p.append(endOfToken)
}

// end says that a value is complete.
func (p *prefixer) end() {
	if p.text {
		p.append(endOfText)
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
	p.append(endOfMedia)
}
