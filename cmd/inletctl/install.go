package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/inlet-proxy/inlet/internal/check"
)

func installCommand() *cobra.Command {
	var format string
	var only, strict, list bool
	cmd := &cobra.Command{
		Use:   "install --check FILE...",
		Short: "Check Kubernetes manifests that put Inlet on Envoy Gateway",
		Long: `Checks a set of Kubernetes manifests, all files together: what Inlet needs of Envoy Gateway and is missing, or was changed to what does not work.
Of Inlet's configuration in them it finds what inletctl check finds. Nothing is installed, and nothing but the files is read.

"-" is the standard input, for what kubectl kustomize or helm template prints. Errors make the exit code 1, and with --strict warnings do too.`,
		Example: `  inletctl install --check manifests.yaml
  inletctl install --check --strict rendered.yaml envoy/gateway/recipes/two-clusters/more.yaml
  inletctl install --list`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case list:
				return nil
			case !only:
				return errors.New("install is there with --check only")
			case len(args) == 0:
				return errors.New("which file?")
			}
			return nil
		},
		RunE: faults(func(cmd *cobra.Command, files []string) error {
			if format != "text" && format != "json" {
				return usageError{fmt.Errorf("--output=%s: it is text or json", format)}
			}
			if list {
				for _, c := range check.ManifestChecks {
					fmt.Fprintf(cmd.OutOrStdout(), "%-21s %s\n", c.Name, c.About)
				}
				return nil
			}
			return checkManifests(cmd, files, format, strict)
		}),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&only, "check", false, "check the files")
	f.StringVarP(&format, "output", "o", "text", "text, or json: an object with the list findings")
	f.BoolVar(&strict, "strict", false, "warnings count as faults")
	f.BoolVar(&list, "list", false, "list the checks")
	return cmd
}

func checkManifests(cmd *cobra.Command, files []string, format string, strict bool) error {
	var set []check.ManifestFile
	for _, name := range files {
		text, err := readInput(cmd, name)
		if err != nil {
			return usageError{err}
		}
		set = append(set, check.ManifestFile{Name: name, Text: text})
	}
	found := check.Manifests(set)
	if format == "text" && len(found) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "ok")
	}
	return report(cmd, found, format, strict)
}
