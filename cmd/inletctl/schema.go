package main

import (
	"github.com/spf13/cobra"

	"github.com/inlet-proxy/inlet/internal/schema"
)

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of a chain's configuration",
		Long: `Prints a JSON Schema (draft 2020-12) of a chain's configuration, with the types, bounds, defaults and help of all keys. With it an editor
completes keys and marks mistakes. In VS Code and others with the YAML language server, the first line of the file names it:

  # yaml-language-server: $schema=inlet.schema.json

The schema knows less than ` + "`inletctl check`" + `: not, for example, that a name is used twice.`,
		Example: `  inletctl schema > inlet.schema.json`,
		Args:    cobra.NoArgs,
		RunE: faults(func(cmd *cobra.Command, _ []string) error {
			text, err := schema.Chain()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		}),
	}
}
