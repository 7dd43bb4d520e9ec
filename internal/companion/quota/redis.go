package quota

import (
	"context"
	"errors"
	"log/slog"

	"github.com/inlet-proxy/inlet/internal/companion/http1"
)

// RedisOptions are how Redis is reached.
type RedisOptions struct {
	Addresses    []string // of one server, or of some of a cluster
	Username     string
	PasswordFile string     // "" for none
	TLS          *http1.TLS // nil: none
	Prefix       string     // of all keys
}

// IsPrefix accepts what can begin all keys.
func IsPrefix(s string) string { return isName(s) }

// OpenRedis opens a store that several companions can share.
func OpenRedis(_ context.Context, _ RedisOptions, _ *slog.Logger) (Store, error) {
	return nil, errors.New("not yet")
}
