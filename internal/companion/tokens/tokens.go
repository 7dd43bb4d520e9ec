// Package tokens keeps access tokens in files that Envoy reads as secrets, for the clusters whose services want one.
// A token is renewed well before it expires. While a new one cannot be had, the old one stays.
package tokens

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

// Token is what a service wants to see.
type Token struct {
	Header  string // value of the Authorization header
	Expires time.Time
}

// Source gets a token. It keeps none: the same token comes twice only if the issuer sends it twice.
type Source interface {
	// Token does not return later than ctx ends. Its error can be logged: it has nothing secret.
	Token(ctx context.Context) (Token, error)
}

// Options say what a Keeper does.
type Options struct {
	Name   string // of the secret in Envoy
	File   string // that Envoy reads; its folder exists
	Source Source
	Log    *slog.Logger
}

// Stats are a Keeper's numbers.
type Stats struct {
	Name            string
	Renewed, Failed uint64    // attempts, by result
	Since, Expires  time.Time // of the token in the file; zero before the first that this process wrote
}

// Keeper keeps one token in one file.
type Keeper struct {
	o     Options
	tried chan struct{} // closed after the first attempt

	mu    sync.Mutex
	stats Stats
}

const (
	attemptTime = 30 * time.Second // some sources try several times themselves
	leastWait   = time.Second      // between two attempts, if one fails or the token hardly lives
	longestWait = time.Minute      // between two attempts of which one fails
)

// New makes a Keeper. If the file does not exist, it gets an empty secret: without the file Envoy does not start, and with it Envoy answers requests
// that need the token itself, with 401.
func New(o Options) (*Keeper, error) {
	k := &Keeper{o: o, tried: make(chan struct{}), stats: Stats{Name: o.Name}}
	err := CheckFolder(o.File)
	if err == nil {
		if _, missing := os.Stat(o.File); errors.Is(missing, os.ErrNotExist) {
			err = replace(o.File, secret(o.Name, ""))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("token %s: %w", o.Name, err)
	}
	return k, nil
}

// Run renews the token until ctx ends. The file stays.
func (k *Keeper) Run(ctx context.Context) {
	failures := 0
	for wait := time.Duration(0); sleep(ctx, wait); {
		token, err := k.renew(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			// Google's metadata server returns the same token until five minutes before it expires, so there may be a second attempt with what
			// is left, and a third.
			failures, wait = 0, max(time.Until(token.Expires)*3/4, leastWait)
		} else {
			failures++
			wait = min(leastWait<<min(failures-1, 6), longestWait)
		}
		wait -= rand.N(wait / 10) // not all companions at once
		k.note(token, err, wait)
	}
}

// renew gets a token and writes it.
func (k *Keeper) renew(ctx context.Context) (Token, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, attemptTime, errors.New("no response in time"))
	defer cancel()
	token, err := k.o.Source.Token(ctx)
	if err == nil {
		err = replace(k.o.File, secret(k.o.Name, token.Header))
	}
	return token, err
}

// note says what came of an attempt, in the log and in the numbers.
func (k *Keeper) note(token Token, err error, wait time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	again := slog.Duration("again", wait.Round(time.Second))
	switch {
	case err == nil:
		k.stats.Renewed++
		k.stats.Since, k.stats.Expires = time.Now(), token.Expires
		k.o.Log.Info("renewed the token", "token", k.o.Name, "expires", token.Expires, again)
	case k.stats.Expires.IsZero():
		k.stats.Failed++
		k.o.Log.Error("no token yet", "token", k.o.Name, "reason", err, again)
	case time.Now().After(k.stats.Expires):
		k.stats.Failed++
		k.o.Log.Error("the token has expired and cannot be renewed", "token", k.o.Name, "reason", err, "expired", k.stats.Expires, again)
	default:
		k.stats.Failed++
		k.o.Log.Warn("cannot renew the token; the old one stays", "token", k.o.Name, "reason", err, "expires", k.stats.Expires, again)
	}
	if k.stats.Renewed+k.stats.Failed == 1 {
		close(k.tried)
	}
}

// Tried is closed when the first attempt has succeeded or failed.
func (k *Keeper) Tried() <-chan struct{} { return k.tried }

// Stats returns the numbers.
func (k *Keeper) Stats() Stats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stats
}

// sleep reports whether the time has passed; else ctx has ended. It uses the wall clock, which goes on while a machine is suspended.
func sleep(ctx context.Context, d time.Duration) bool {
	until := time.Now().Add(d).Round(0)
	step := time.NewTimer(0)
	defer step.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-step.C:
		}
		left := time.Until(until)
		if left <= 0 {
			return ctx.Err() == nil
		}
		step.Reset(min(left, time.Minute))
	}
}
