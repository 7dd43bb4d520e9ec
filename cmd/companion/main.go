// Companion finds the replicas of each pool, scrapes their metrics once for all proxies, and serves the proxies a snapshot of them.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/inlet-proxy/inlet/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var file, listen, level, format string
	var check bool
	cmd := &cobra.Command{
		Use:     "companion --config FILE",
		Version: version.String(),
		Short:   "Scrapes model servers once for all proxies and serves them a snapshot",
		Long: `Finds the replicas of each pool, scrapes their metrics once for all proxies, and serves the proxies a snapshot of them. It is not on the
request path: while it is down, a proxy uses its last snapshot.

It serves /v1/snapshot for the proxies, /v1/snapshot.json for people, /metrics, /healthz, and /readyz, which says what is missing.
With quota in its configuration it also divides limits among proxies at /v1/quota, and has an admin API on a port of its own.
With tokens it keeps access tokens in files that Envoy reads as secrets.`,
		Example: `  companion --config companion.yaml --check                              # is the file valid, and can every source be read?
  companion --config companion.yaml --log-format json
  curl -s localhost:9002/v1/snapshot.json                                # what the proxies know`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := readConfig(file)
			if err != nil {
				return err
			}
			if listen != "" {
				cfg.Listen = listen
			}
			if check {
				return cfg.check(cmd.Context(), cmd.OutOrStdout())
			}
			log, err := newLogger(cmd.ErrOrStderr(), level, format)
			if err != nil {
				return err
			}
			shared, err := openQuota(cmd.Context(), cfg.Quota, log) // before the ports: what it needs may be missing
			if err != nil {
				return err
			}
			defer shared.close(log)
			kept, err := newKeepers(cfg.Tokens, log)
			if err != nil {
				return err
			}
			l, err := openPorts(cfg, cmd.OutOrStdout())
			if err != nil {
				return err
			}
			return run(cmd.Context(), cfg, l, shared, kept, log)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file (YAML or JSON)")
	cmd.Flags().StringVar(&listen, "listen", "", "address to listen on, overrides the file's")
	cmd.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().StringVar(&format, "log-format", "text", "text or json")
	cmd.Flags().BoolVar(&check, "check", false, "read the configuration and every source of endpoints, get every token once, report all errors, and exit")
	_ = cmd.MarkFlagRequired("config") // fails only for a flag that does not exist
	return cmd
}

// listeners are the ports. Those that are not configured are nil.
type listeners struct{ proxies, xds, admin net.Listener }

// openPorts opens the ports, and prints a line for each, for which scripts wait.
func openPorts(cfg *Config, out io.Writer) (l listeners, err error) {
	open := func(address, what string) (net.Listener, error) {
		if address == "" {
			return nil, nil
		}
		listener, err := net.Listen("tcp", address)
		if err == nil {
			fmt.Fprintln(out, "companion", what, "on", listener.Addr())
		}
		return listener, err
	}
	if l.proxies, err = open(cfg.Listen, "listening"); err != nil {
		return l, err
	}
	if l.xds, err = open(cfg.XDS, "serving EDS"); err != nil {
		return l, err
	}
	if cfg.Quota != nil && cfg.Quota.Admin != nil {
		l.admin, err = open(cfg.Quota.Admin.Listen, "serving the admin API")
	}
	return l, err
}

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level: %w", err)
	}
	options := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("--log-format: %q is neither text nor json", format)
}
