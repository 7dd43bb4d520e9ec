package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/inlet-proxy/inlet/internal/companion/tokens"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// TokenConfig is an access token that is kept in a file for Envoy.
type TokenConfig struct {
	Name   string // of the secret in Envoy
	File   string
	Google *tokens.Google
}

// tokenParser parses the tokens one after the other.
type tokenParser struct {
	config       *Config
	names, files map[string]bool
}

func (tp *tokenParser) parse(v *conf.Value) {
	var t TokenConfig
	v.Object(func(o *conf.Object) {
		o.Required("name", "file", "google")
		if o.String("name", &t.Name, conf.NotEmpty) && t.Name != "" && tp.names[t.Name] {
			o.Errorf("name", "duplicate token name %q", t.Name)
		}
		if o.String("file", &t.File, conf.NotEmpty, tokens.CheckFile) && t.File != "" && tp.files[t.File] {
			o.Errorf("file", "%s is the file of another token", t.File)
		}
		tp.names[t.Name], tp.files[t.File] = true, true
		o.Object("google", func(o *conf.Object) {
			t.Google = &tokens.Google{Scopes: []string{tokens.CloudPlatform}}
			o.String("keyFile", &t.Google.KeyFile, conf.NotEmpty)
			o.Bool("metadata", &t.Google.Metadata)
			o.Strings("scopes", &t.Google.Scopes, conf.NotEmpty)
			if t.Google.Metadata && o.Has("keyFile") {
				o.Errorf("metadata", "want either keyFile or metadata")
			}
			if len(t.Google.Scopes) == 0 {
				o.Errorf("scopes", "needs at least one scope")
			}
		})
	})
	tp.config.Tokens = append(tp.config.Tokens, t)
}

// checkTokens gets each token once, without writing it.
func checkTokens(ctx context.Context, all []TokenConfig, out io.Writer) error {
	var bad []error
	for _, t := range all {
		err := tokens.CheckFolder(t.File)
		if err == nil {
			var token tokens.Token
			if token, err = t.Google.Token(ctx); err == nil {
				fmt.Fprintf(out, "token %s: expires in %s\n", t.Name, time.Until(token.Expires).Round(time.Minute))
			}
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("token %s: %w", t.Name, err))
		}
	}
	return errors.Join(bad...)
}

// keepers keep the tokens.
type keepers []*tokens.Keeper

// newKeepers makes sure that Envoy finds the files.
func newKeepers(all []TokenConfig, log *slog.Logger) (keepers, error) {
	var made keepers
	for _, t := range all {
		k, err := tokens.New(tokens.Options{Name: t.Name, File: t.File, Source: t.Google, Log: log})
		if err != nil {
			return nil, err
		}
		made = append(made, k)
	}
	return made, nil
}

func (all keepers) start(ctx context.Context, group *errgroup.Group) {
	for _, k := range all {
		group.Go(func() error {
			k.Run(ctx)
			return nil
		})
	}
}

// missing says which tokens have not been asked for yet. A token that cannot be had is not missing: the companion's other duties do not depend on it.
func (all keepers) missing() (lines []string) {
	for _, k := range all {
		select {
		case <-k.Tried():
		default:
			lines = append(lines, "token "+k.Stats().Name+": no response yet")
		}
	}
	return lines
}

var (
	tokenRenewals = describe("inlet_companion_token_renewals_total", "Attempts to renew a token, by result: renewed, failed.", "token", "result")
	tokenAge      = describe("inlet_companion_token_age_seconds", "Time since the token was renewed. Absent before the first.", "token")
	tokenExpiry   = describe("inlet_companion_token_expiry_seconds", "Time until the token expires, negative if it has expired. Absent before the first.", "token")
)

func (all keepers) collect(ch chan<- prometheus.Metric) {
	for _, k := range all {
		s := k.Stats()
		counter(ch, tokenRenewals, float64(s.Renewed), s.Name, "renewed")
		counter(ch, tokenRenewals, float64(s.Failed), s.Name, "failed")
		if !s.Expires.IsZero() {
			gauge(ch, tokenAge, time.Since(s.Since).Seconds(), s.Name)
			gauge(ch, tokenExpiry, time.Until(s.Expires).Seconds(), s.Name)
		}
	}
}
