package process

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Ports below those from which systems take the local ports of connections (32768 and up on Linux, 49152 elsewhere): a free one of
// those may be in use by a connection a moment later.
const (
	firstPort = 20000
	lastPort  = 32000
)

// given are the ports that this process has got already.
var given sync.Map

// FreePort returns a port that nobody listens on at the addresses, or at 127.0.0.1 if there are none, for a server that cannot choose
// one itself and report it. No port is returned twice.
func FreePort(addresses ...string) (int, error) {
	if len(addresses) == 0 {
		addresses = []string{"127.0.0.1"}
	}
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if _, again := given.LoadOrStore(port, true); !again && isFree(port, addresses) {
			return port, nil
		}
	}
	return 0, errors.New("found no free port")
}

func isFree(port int, addresses []string) bool {
	for _, a := range addresses {
		l, err := net.Listen("tcp", net.JoinHostPort(a, strconv.Itoa(port)))
		if err != nil || l.Close() != nil {
			return false
		}
	}
	return true
}
