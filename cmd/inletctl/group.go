package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// groups makes every command that has only subcommands refuse words that are none of them. Without that a misspelt subcommand prints the
// help and succeeds, and a script believes that it was done.
func groups(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		groups(sub)
	}
	if cmd.Runnable() || !cmd.HasSubCommands() {
		return
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
		if meant := cmd.SuggestionsFor(args[0]); len(meant) > 0 {
			text += fmt.Sprintf("; did you mean %q?", meant[0])
		}
		return usageError{errors.New(text)}
	}
}
