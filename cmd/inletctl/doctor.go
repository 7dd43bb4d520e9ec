package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/inlet-proxy/inlet/e2e/envoybin"
	"github.com/inlet-proxy/inlet/internal/doctor"
)

func doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine lacks for building, testing and running Inlet",
		Long: `Looks for the programs with which Inlet is built, tested and run, and says for each that is missing what to install.
The variable ENVOY names an Envoy to use.`,
		Example: `  inletctl doctor
  ENVOY=/usr/local/bin/envoy inletctl doctor`,
		Args: cobra.NoArgs,
		RunE: faults(func(cmd *cobra.Command, _ []string) error {
			if !doctor.Examine(cmd.Context(), cmd.OutOrStdout(), os.Getenv("ENVOY"), envoybin.DefaultVersion) {
				return errFound
			}
			return nil
		}),
	}
}
