package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

func demoCommand(kill *interrupts) *cobra.Command {
	flags := gatewayFlags{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Send real requests through Inlet and show where each went, and why",
		Long: `Starts the same as ` + "`inletctl run`" + ` on free ports, sends real requests with the official OpenAI client, prints where each one went and why,
and fails unless each went where it should.

Each flag has an environment variable, shown in brackets; the flag wins.`,
		Example: `  inletctl demo
  inletctl demo --abi module
  inletctl demo --abi module --companion embedded`,
		Args: cobra.NoArgs,
		RunE: faults(func(cmd *cobra.Command, _ []string) error {
			o, err := flags.options(cmd)
			if err != nil {
				return err
			}
			s, err := start(kill, o)
			if err != nil {
				return err
			}
			defer s.Close()
			ctx, cancel := context.WithTimeout(kill.first, 5*time.Minute)
			defer cancel()
			return play(ctx, s, cmd.OutOrStdout())
		}),
	}
	flags.add(cmd.Flags(), false)
	return cmd
}
