package endpoint

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
)

// What proxies tell each other, by way of the companion: how much of theirs is in flight on each replica, and which prompts each replica
// has computed. A replica is named by [ReplicaID], a prompt by a chain of hashes of its blocks; no text of a prompt is in it.

// RelayPath is where a proxy tells what it knows, by POST:
//
//	/v1/relay?proxy=<id>
//
// with a [Tell] in the body. 204 says that it was taken. It is heard by the other proxies with their next snapshot, see [RelayedPath].
const RelayPath = "/v1/relay"

// TellPath returns the request path of a tell.
func TellPath(proxy string) string { return string(escape([]byte(RelayPath+"?proxy="), proxy)) }

// RelayedPath is Path for a proxy that takes part in the relay:
//
//	…&proxy=<id>&heard=<number>
//
// proxy is the id of this Envoy, the same in all its workers and in its tells; heard is what the snapshot that it has says. The answer
// then has what the other proxies have in flight, and the notes that came since. It comes when there is any of that, too.
func RelayedPath(have *Snapshot, worker string, wait time.Duration, proxy string) string {
	b := append([]byte(Path(have, worker, wait)), "&proxy="...)
	b = append(escape(b, proxy), "&heard="...)
	heard := uint64(0)
	if have != nil {
		heard = have.Heard
	}
	return string(strconv.AppendUint(b, heard, 10))
}

// InFlight is work that proxies have sent to a replica and that is not done.
type InFlight struct {
	Requests int64
	Tokens   int64 // of prompts, that it has to compute
}

// Bounds of what is told: no sum of many overflows.
const (
	maxRequests = math.MaxInt32
	maxTokens   = 1 << 40
)

// ReplicaID names a replica in what proxies tell each other: a hash of its address.
func ReplicaID(address string) uint64 { return xxhash.Sum64String(address) }

// TokensCounter is the name of the counter of the tokens in flight on the replica at an address. The counter of the requests has the
// address itself for its name.
func TokensCounter(address string) string { return address + "#tokens" }

// The sections of the relay. Those of an answer come behind all others, since they are for one proxy alone, and the rest for many:
//
//	48 peers: number of endpoints on which the other proxies have something in flight, then per such endpoint:
//	            how many endpoints lie between it and the one before, requests, tokens
//	49 heard: number (u64): all that was told up to it is in this answer and those before
//	50 notes: notes until its end, each: replica (u64), number of blocks (u16), the blocks (u64 each)
//
// and in a tell:
//
//	50 notes: as above
//	64 in flight: number of replicas, then per replica: id (u64), requests, tokens. What is not in it is nothing
const (
	sectionPeers    = 48
	sectionHeard    = 49
	sectionNotes    = 50
	sectionInFlight = 64

	noteHeader = 8 + 2
)

// MaxNote is the most blocks of one note. A longer prompt is several notes, its end first.
const MaxNote = 4000

// Unlearnt returns the id by which a note says the opposite: the replica does not have
// these blocks after all. Who does not know that takes it for a replica that is not
// there. Twice gives the id itself.
func Unlearnt(replica uint64) uint64 { return ^replica }

// AppendNote appends a note: a replica has a prompt's blocks, at most MaxNote of them.
func AppendNote(dst []byte, replica uint64, chain []uint64) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, replica)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(chain)))
	for _, block := range chain {
		dst = binary.LittleEndian.AppendUint64(dst, block)
	}
	return dst
}

// Note is a note where it lies.
type Note struct {
	Replica uint64
	blocks  []byte
}

// CutNote returns the first note of some; ok is false at their end, and if the rest is none.
func CutNote(notes []byte) (n Note, rest []byte, ok bool) {
	if len(notes) < noteHeader {
		return Note{}, nil, false
	}
	n.Replica = binary.LittleEndian.Uint64(notes)
	size := noteHeader + 8*int(binary.LittleEndian.Uint16(notes[8:]))
	if size > len(notes) || size > noteHeader+8*MaxNote || size == noteHeader {
		return Note{}, nil, false
	}
	n.blocks = notes[noteHeader:size]
	return n, notes[size:], true
}

// Len is the number of blocks.
func (n *Note) Len() int { return len(n.blocks) / 8 }

// Block returns one of the blocks.
func (n *Note) Block(i int) uint64 { return binary.LittleEndian.Uint64(n.blocks[8*i:]) }

// AppendChain appends the blocks to dst.
func (n *Note) AppendChain(dst []uint64) []uint64 {
	for i := range n.Len() {
		dst = append(dst, n.Block(i))
	}
	return dst
}

// validNotes checks notes to their end.
func validNotes(notes []byte) error {
	for len(notes) > 0 {
		_, rest, ok := CutNote(notes)
		if !ok {
			return fmt.Errorf("%w: a note is cut off, or its length is wrong", ErrMalformed)
		}
		notes = rest
	}
	return nil
}

// Peer is what the other proxies have in flight on the endpoint at a position, see Change.
type Peer struct {
	Position int
	InFlight
}

// AppendRelayed appends to an answer (of Append or AppendDelta) what is for one proxy: peers in ascending order of position, how far it has
// heard with that, and notes.
func AppendRelayed(dst []byte, peers []Peer, heard uint64, notes []byte) []byte {
	dst = appendPeers(dst, peers)
	dst = appendHeard(dst, heard)
	if len(notes) == 0 {
		return dst
	}
	dst, start := openSection(dst, sectionNotes)
	return closeSection(append(dst, notes...), start)
}

func appendPeers(dst []byte, peers []Peer) []byte {
	dst, start := openSection(dst, sectionPeers)
	dst = binary.AppendUvarint(dst, uint64(len(peers)))
	next := 0
	for _, p := range peers {
		dst = binary.AppendUvarint(dst, uint64(p.Position-next))
		dst = appendInFlight(dst, p.InFlight)
		next = p.Position + 1
	}
	return closeSection(dst, start)
}

func appendInFlight(dst []byte, f InFlight) []byte {
	dst = binary.AppendUvarint(dst, uint64(min(max(0, f.Requests), maxRequests)))
	return binary.AppendUvarint(dst, uint64(min(max(0, f.Tokens), maxTokens)))
}

func appendHeard(dst []byte, heard uint64) []byte {
	dst, start := openSection(dst, sectionHeard)
	return closeSection(binary.LittleEndian.AppendUint64(dst, heard), start)
}

// appendKnownPeers appends what of the relay belongs to the snapshot itself, if there is any.
func appendKnownPeers(dst []byte, s *Snapshot) []byte {
	var peers []Peer
	position := 0
	for i := range s.Pools {
		for j := range s.Pools[i].Endpoints {
			if f := s.Pools[i].Endpoints[j].Peers; f != (InFlight{}) {
				peers = append(peers, Peer{position, f})
			}
			position++
		}
	}
	if len(peers) > 0 {
		dst = appendPeers(dst, peers)
	}
	if s.Heard > 0 {
		dst = appendHeard(dst, s.Heard)
	}
	return dst
}

func (d *decoder) decodePeers(b []byte) error {
	const minPeer = 1 + 1 + 1
	r := reader{b: b}
	next := 0
	for range r.count(minPeer) {
		gap := r.uvarint(math.MaxInt32)
		if gap >= uint64(len(d.endpoints)-next) {
			r.fail("there is no such endpoint")
		}
		if r.bad != "" {
			break
		}
		next += int(gap) + 1
		d.endpoints[next-1].Peers = r.inFlight()
	}
	return r.done("peers")
}

func (r *reader) inFlight() InFlight {
	return InFlight{Requests: int64(r.uvarint(maxRequests)), Tokens: int64(r.uvarint(maxTokens))}
}

func (s *Snapshot) decodeHeard(b []byte) error {
	if len(b) != 8 {
		return fmt.Errorf("%w: heard in %d bytes", ErrMalformed, len(b))
	}
	s.Heard = binary.LittleEndian.Uint64(b)
	return nil
}

// Notes returns the notes in an answer that Apply has read. They lie in it.
func Notes(answer []byte) []byte {
	for rest := answer[len(magic)+1:]; len(rest) > 0; {
		kind, body, after, err := cutSection(rest)
		if err != nil {
			return nil
		}
		if kind == sectionNotes {
			return body
		}
		rest = after
	}
	return nil
}

// Tell is what a proxy tells.
type Tell struct {
	InFlight []Told // all that it has in flight
	Notes    []byte // of what it has learnt since its last tell
}

// Told is what a proxy has in flight on a replica.
type Told struct {
	Replica uint64
	InFlight
}

// MaxTold is the most replicas of one tell.
const MaxTold = 1 << 14

// AppendTell appends the wire form of a tell to dst.
func AppendTell(dst []byte, t *Tell) []byte {
	dst = append(dst, magic...)
	dst = append(dst, format)
	var start int
	if len(t.Notes) > 0 {
		dst, start = openSection(dst, sectionNotes)
		dst = closeSection(append(dst, t.Notes...), start)
	}
	dst, start = openSection(dst, sectionInFlight)
	dst = binary.AppendUvarint(dst, uint64(len(t.InFlight)))
	for i := range t.InFlight {
		dst = binary.LittleEndian.AppendUint64(dst, t.InFlight[i].Replica)
		dst = appendInFlight(dst, t.InFlight[i].InFlight)
	}
	return closeSection(dst, start)
}

// DecodeTell reads a tell, whose notes lie in b. What AppendTell does not write is an error that wraps ErrMalformed, but for sections that
// it does not know.
func DecodeTell(b []byte) (*Tell, error) {
	t, told := new(Tell), false
	err := eachSection(b, func(kind int, body []byte) error {
		switch kind {
		case sectionNotes:
			t.Notes = body
			return validNotes(body)
		case sectionInFlight:
			told = true
			return t.decodeInFlight(body)
		}
		return nil
	})
	if err == nil && !told {
		err = fmt.Errorf("%w: a required section is missing", ErrMalformed)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Tell) decodeInFlight(b []byte) error {
	const minTold = 8 + 1 + 1
	r := reader{b: b}
	n := r.count(minTold)
	if n > MaxTold {
		r.fail("too many replicas")
		n = 0
	}
	t.InFlight = make([]Told, 0, n)
	for range n {
		t.InFlight = append(t.InFlight, Told{r.uint64(), r.inFlight()})
	}
	return r.done("in flight")
}

func (r *reader) uint64() uint64 {
	if r.left() < 8 {
		r.fail("cut off")
		return 0
	}
	r.at += 8
	return binary.LittleEndian.Uint64(r.b[r.at-8:])
}
