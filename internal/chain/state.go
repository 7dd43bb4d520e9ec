package chain

import (
	"fmt"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// state is how far an exchange has come. What a callback may lead to is in
// transitions; everything else is a defect of the chain.
type state uint8

const (
	done      state = iota // over, or not begun
	reading                // headers or body of the request are still coming
	waiting                // the request is held: a filter waits for its call
	released               // the request has gone on
	parked                 // ... and its response is held: a filter has calls open beside it
	bypassed               // ... and no filter sees the exchange
	unmatched              // ... because no API has its path
	keeping                // the response is screened, and nothing of it has gone on
	keepAsks               // ... and a filter waits for its call
	passing                // the response is screened, and has begun to go on
	passAsks               // ... and a filter waits for its call
	ended                  // Inlet has ended a response that had begun; the rest is discarded
	refused                // Inlet has refused the request, or its response
	unrouted               // Inlet has refused a request that no filter saw
	answered               // a filter has given the response itself
	states
)

var stateNames = [states]string{
	"done", "reading", "waiting", "released", "parked", "bypassed", "unmatched", "keeping", "keepAsks", "passing", "passAsks", "ended",
	"refused", "unrouted", "answered",
}

func (s state) String() string { return stateNames[s] }

// in reports whether s is one of set.
func (s state) in(set stateSet) bool { return set>>s&1 == 1 }

// stateSet is a set of states, by bit.
type stateSet uint16

func setOf(all ...state) (set stateSet) {
	for _, s := range all {
		set |= 1 << s
	}
	return set
}

// transitions are the states that may follow each state. Every exchange may be
// over at any time, since the client may be gone at any time.
var transitions = [states]stateSet{
	done:      setOf(reading),
	reading:   setOf(waiting, released, bypassed, unmatched, refused, answered, done),
	waiting:   setOf(reading, refused, done),
	released:  setOf(parked, keeping, refused, answered, done),
	parked:    setOf(released, refused, answered, done),
	bypassed:  setOf(unrouted, done),
	unmatched: setOf(unrouted, done),
	keeping:   setOf(keepAsks, passing, refused, answered, done),
	keepAsks:  setOf(keeping, refused, answered, done), // by a call beside, which opens before the response
	passing:   setOf(passAsks, ended, refused, done),   // refused: a fault in what still came of the request
	passAsks:  setOf(passing, refused, done),
	ended:     setOf(refused, done),
	refused:   setOf(done),
	unrouted:  setOf(done),
	answered:  setOf(done),
}

var (
	// sent: the request has gone to a replica, and filters have seen it.
	sent = setOf(released, parked, keeping, keepAsks, passing, passAsks, ended)
	// asking: a filter waits for its call.
	asking = setOf(waiting, keepAsks, passAsks)
	// cut: the client has not got the replica's response, or not its end.
	cut = setOf(parked, keeping, keepAsks, passAsks, ended, refused, answered)
	// screened: the response is withheld until it has been screened.
	screened = setOf(keeping, keepAsks, passing, passAsks)
)

// to moves on to another state.
func (s *Stream) to(next state) {
	if !next.in(transitions[s.state]) {
		s.c.deps.Log(filter.Error, fmt.Sprintf("defect: an exchange went from %s to %s", s.state, next))
	}
	s.state = next
}

// bodyUse is what happens to the request's body as it arrives.
type bodyUse uint8

const (
	bodyPasses      bodyUse = iota // it is not read, or all of it has been
	bodyRead                       // it is read, and held until its end
	bodyReadPassing                // it is read, and may go on before its end
)

// responseUse is what happens to the response's body as it arrives.
type responseUse uint8

const (
	responsePasses   responseUse = iota // it is not read
	responseCounted                     // its usage is counted
	responseRestored                    // ... and the model's name restored
	responseScreened                    // ... and its text screened
)
