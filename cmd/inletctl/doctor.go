package main

import (
	"cmp"
	"os"

	"github.com/spf13/cobra"

	"github.com/inlet-proxy/inlet/e2e/envoybin"
	"github.com/inlet-proxy/inlet/internal/doctor"
)

func doctorCommand() *cobra.Command {
	var module, envoy string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine lacks for building, testing and running Inlet, or whether a build of Inlet fits an Envoy",
		Long: `Looks for the programs with which Inlet is built, tested and run, and says for each that is missing what to install.

With --module it compares instead a build of Inlet with the Envoy that is to load it, before it is loaded: platform, C library, the functions that
the module calls in Envoy, the SDK, and for a wasm plugin whether Envoy has V8. It needs nothing but the two files.

Envoy is --envoy or the variable ENVOY, else the one in PATH, in the cache of func-e or in Inlet's own.

Exit codes: 0 all is well, 1 something is missing, does not fit or cannot be examined, 2 the command line cannot be understood.`,
		Example: `  inletctl doctor
  inletctl doctor --module dist/libinlet.so --envoy /usr/local/bin/envoy
  inletctl doctor --module dist/inlet.wasm`,
		Args: cobra.NoArgs,
		RunE: faults(func(cmd *cobra.Command, _ []string) error {
			envoy = cmp.Or(envoy, os.Getenv("ENVOY"))
			if module == "" {
				if !doctor.Examine(cmd.Context(), cmd.OutOrStdout(), envoy, envoybin.DefaultVersion) {
					return errFound
				}
				return nil
			}
			if envoy == "" {
				var err error
				if envoy, err = envoybin.Installed(); err != nil {
					return err
				}
			}
			if !doctor.Compare(cmd.Context(), module, envoy).Print(cmd.OutOrStdout()) {
				return errFound
			}
			return nil
		}),
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&module, "module", "", "a build of Inlet to compare with Envoy: libinlet.so, inlet-golang.so or inlet.wasm")
	cmd.Flags().StringVar(&envoy, "envoy", "", "Envoy binary [ENVOY]")
	return cmd
}
