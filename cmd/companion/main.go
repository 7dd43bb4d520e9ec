// Companion finds the replicas of each pool, scrapes their metrics once for all proxies, and hands the proxies a snapshot of it.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
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
	var file, listen, level string
	var check bool
	cmd := &cobra.Command{
		Use:           "companion --config FILE",
		Short:         "Scrapes model servers once for all proxies and hands them the result",
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
				return checkSources(cmd.Context(), cfg, cmd.OutOrStdout())
			}
			var l slog.Level
			if err := l.UnmarshalText([]byte(level)); err != nil {
				return fmt.Errorf("--log-level: %w", err)
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: l}))
			listener, err := net.Listen("tcp", cfg.Listen)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "companion listening on", listener.Addr())
			var xds net.Listener
			if cfg.XDS != "" {
				if xds, err = net.Listen("tcp", cfg.XDS); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), "companion serving EDS on", xds.Addr())
			}
			return run(cmd.Context(), cfg, listener, xds, log)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file (YAML or JSON)")
	cmd.Flags().StringVar(&listen, "listen", "", "address to listen on, in place of the file's")
	cmd.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().BoolVar(&check, "check", false, "read the configuration, ask every source of endpoints once, say what is wrong, and exit")
	_ = cmd.MarkFlagRequired("config") // fails only for a flag that does not exist
	return cmd
}
