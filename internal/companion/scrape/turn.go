package scrape

import (
	"context"
	"net"

	"github.com/inlet-proxy/inlet/internal/companion/http1"
)

// turn is held by the goroutine that computes; nil: any number may. It is given up while a goroutine waits for the network.
type turn chan struct{}

func (t turn) take() {
	if t != nil {
		t <- struct{}{}
	}
}

func (t turn) give() {
	if t != nil {
		<-t
	}
}

// dial returns a dial function whose connections give up the turn while they wait.
func (t turn) dial(dial http1.DialFunc) http1.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		t.give()
		defer t.take()
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &turned{conn, t}, nil
	}
}

// turned is a connection whose reads give up the turn. Its writes are short.
type turned struct {
	net.Conn
	turn turn
}

// Read implements net.Conn.
func (c *turned) Read(p []byte) (int, error) {
	c.turn.give()
	defer c.turn.take()
	return c.Conn.Read(p)
}
