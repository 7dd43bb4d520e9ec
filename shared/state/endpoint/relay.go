package endpoint

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
)

// What proxies share through the companion: how much they have in flight on each replica, and which prompts each replica has computed. A
// replica is identified by [ReplicaID], a prompt by a chain of hashes of its blocks. It contains no prompt text.

// RelayPath is where a proxy reports, by POST:
//
//	/v1/relay?proxy=<id>
//
// with a [Report] in the body. 204 means that it was taken. The other proxies receive it with their next snapshot, see [RelayedPath].
const RelayPath = "/v1/relay"

// ReportPath returns the request path of a report.
func ReportPath(proxy string) string { return string(escape([]byte(RelayPath+"?proxy="), proxy)) }

// RelayedPath is Path for a proxy that takes part in the relay:
//
//	…&proxy=<id>&heard=<number>
//
// proxy is the id of this Envoy, the same in all its workers and in its reports; heard is Snapshot.Heard of the snapshot that it has. The
// response then contains what the other proxies have in flight, and the notes reported since. These end a long poll, too.
func RelayedPath(have *Snapshot, worker string, wait time.Duration, proxy string) string {
	b := append([]byte(Path(have, worker, wait)), "&proxy="...)
	b = append(escape(b, proxy), "&heard="...)
	heard := uint64(0)
	if have != nil {
		heard = have.Heard
	}
	return string(strconv.AppendUint(b, heard, 10))
}

// InFlight is unfinished work that proxies have sent to a replica.
type InFlight struct {
	Requests int64
	Tokens   int64 // of prompts that it has to compute
}

// Bounds of what is reported, so that no sum overflows.
const (
	maxRequests = math.MaxInt32
	maxTokens   = 1 << 40
)

// ReplicaID identifies a replica in reports: a hash of its address.
func ReplicaID(address string) uint64 { return xxhash.Sum64String(address) }

// TokensCounter is the name of the counter of the tokens in flight on the replica at an address. The counter of the requests has the
// address as its name.
func TokensCounter(address string) string { return address + "#tokens" }

// The sections of the relay. Those of a response come after all others, since they are for one proxy, and the rest is the same for many:
//
//	48 peers: number of endpoints on which the other proxies have something in flight, then per such endpoint:
//	            how many endpoints lie between it and the one before, requests, tokens
//	49 heard: number (u64): everything reported up to it is in this response and those before
//	50 notes: notes until its end, each: replica (u64), number of blocks (u16), the blocks (u64 each)
//
// and in a report:
//
//	50 notes: as above
//	64 in flight: number of replicas, then per replica: id (u64), requests, tokens. Replicas that are not listed have none
const (
	sectionPeers    = 48
	sectionHeard    = 49
	sectionNotes    = 50
	sectionInFlight = 64

	noteHeader = 8 + 2
)

// MaxNote is the most blocks of one note. A longer prompt is several notes, its end first.
const MaxNote = 4000

// Unlearnt returns the id by which a note says the opposite: the replica does not have these blocks after all. Older versions take it for
// an unknown replica. Applied twice it returns the id itself.
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

// Note is a note in the buffer that it was read from.
type Note struct {
	Replica uint64
	blocks  []byte
}

// CutNote returns the first of several notes; ok is false at their end, and if the rest is malformed.
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

// Len returns the number of blocks.
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

// AppendRelayed appends to a response (of Append or AppendDelta) what is for one proxy: peers in ascending order of position, the number up
// to which it has then heard, and notes.
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
		e := d.endpointAt(&r, &next)
		if e == nil {
			break
		}
		e.Peers = r.inFlight()
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

// Notes returns the notes in a response that Apply has decoded. They alias it.
func Notes(response []byte) []byte {
	for rest := response[len(magic)+1:]; len(rest) > 0; {
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

// Report is what a proxy reports.
type Report struct {
	InFlight []Reported // all that it has in flight
	Notes    []byte     // what it has learnt since its last report
}

// Reported is what a proxy has in flight on a replica.
type Reported struct {
	Replica uint64
	InFlight
}

// MaxReported is the most replicas in one report.
const MaxReported = 1 << 14

// AppendReport appends the wire form of a report to dst.
func AppendReport(dst []byte, t *Report) []byte {
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

// DecodeReport decodes a report, whose notes alias b. Unknown sections are ignored; anything else that AppendReport does not write is an
// error that wraps ErrMalformed.
func DecodeReport(b []byte) (*Report, error) {
	t, complete := new(Report), false
	err := eachSection(b, func(kind int, body []byte) error {
		switch kind {
		case sectionNotes:
			t.Notes = body
			return validNotes(body)
		case sectionInFlight:
			complete = true
			return t.decodeInFlight(body)
		}
		return nil
	})
	if err == nil && !complete {
		err = fmt.Errorf("%w: a required section is missing", ErrMalformed)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Report) decodeInFlight(b []byte) error {
	const minReported = 8 + 1 + 1
	r := reader{b: b}
	n := r.count(minReported)
	if n > MaxReported {
		r.fail("too many replicas")
		n = 0
	}
	t.InFlight = make([]Reported, 0, n)
	for range n {
		t.InFlight = append(t.InFlight, Reported{r.uint64(), r.inFlight()})
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
