package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/inlet-proxy/inlet/internal/check"
)

func checkCommand() *cobra.Command {
	var format string
	var envoy, strict, list bool
	cmd := &cobra.Command{
		Use:   "check FILE...",
		Short: "Check configurations of Inlet, and Envoy bootstraps that have Inlet in them",
		Long: `Checks each file with the code that reads it inside Envoy, and says all that is wrong at once, with its place and what may have been meant.
Nothing is started, and nothing but the files is read.

Of a chain's configuration without faults it also says for each limit of quota whose accounts it has.

A file is a chain's configuration, or an Envoy bootstrap in YAML or JSON. Of a bootstrap, every configuration of Inlet in its static listeners is
checked, and what Envoy needs for Inlet to work: see --list. A bootstrap is recognized by its keys (static_resources, admin, node); --envoy says
that a file is one. "-" is the standard input.

Errors make the exit code 1, and with --strict warnings do too.`,
		Example: `  inletctl check inlet.yaml
  inletctl check envoy/static/wasm.yaml envoy/static/module.yaml
  inletctl check --envoy -o json bootstrap.json | jq '.findings[].message'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 && !list {
				return fmt.Errorf("which file?")
			}
			return nil
		},
		RunE: faults(func(cmd *cobra.Command, files []string) error {
			if format != "text" && format != "json" {
				return usageError{fmt.Errorf("--output=%s: it is text or json", format)}
			}
			if list {
				for _, c := range check.Checks {
					fmt.Fprintf(cmd.OutOrStdout(), "%-21s %s\n", c.Name, c.About)
				}
				return nil
			}
			return checkFiles(cmd, files, format, envoy, strict)
		}),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVarP(&format, "output", "o", "text", "text, or json: an object with the list findings")
	f.BoolVar(&envoy, "envoy", false, "the files are Envoy bootstraps")
	f.BoolVar(&strict, "strict", false, "warnings count as faults")
	f.BoolVar(&list, "list", false, "list the checks")
	return cmd
}

func checkFiles(cmd *cobra.Command, files []string, format string, envoy, strict bool) error {
	var found []check.Finding
	for _, name := range files {
		text, err := readInput(cmd, name)
		if err != nil {
			return usageError{err}
		}
		var here []check.Finding
		var limits []string
		if envoy || check.IsBootstrap(text) {
			here = check.Bootstrap(name, text)
		} else {
			here = check.Document(name, text)
			limits = check.Limits(text)
		}
		found = append(found, here...)
		if format == "text" && len(here) == 0 {
			fmt.Fprintln(cmd.OutOrStdout(), name+": ok")
			for _, l := range limits {
				fmt.Fprintln(cmd.OutOrStdout(), "  "+l)
			}
		}
	}
	return report(cmd, found, format, strict)
}

// report prints findings, and returns errFound if they are faults.
func report(cmd *cobra.Command, found []check.Finding, format string, strict bool) error {
	errors, warnings := check.Count(found)
	if format == "json" {
		if err := check.WriteJSON(cmd.OutOrStdout(), found); err != nil {
			return err
		}
	} else {
		check.WriteText(cmd.OutOrStdout(), found)
		if len(found) > 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "%s, %s\n", counted(errors, "error"), counted(warnings, "warning"))
		}
	}
	if errors > 0 || strict && warnings > 0 {
		return errFound
	}
	return nil
}

// counted is a number with its noun.
func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func readInput(cmd *cobra.Command, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(cmd.InOrStdin())
	}
	return os.ReadFile(name)
}
