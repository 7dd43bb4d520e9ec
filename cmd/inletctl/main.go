// Command inletctl is the tool for people who run Inlet: it starts one to try, checks configurations, and says what a
// machine lacks.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/inlet-proxy/inlet/internal/version"
)

// Exit codes.
const (
	exitOK     = 0
	exitFaults = 1 // faults were found, or something failed
	exitUsage  = 2 // the command line cannot be understood
)

func main() {
	kill := catchInterrupts()
	code := execute(kill, os.Args[1:], os.Stdout, os.Stderr)
	kill.stop()
	os.Exit(code)
}

// execute runs a command line and returns the exit code.
func execute(kill *interrupts, args []string, stdout, stderr io.Writer) int {
	root := newRoot(kill)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	var failed failure
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &failed):
		if !errors.Is(err, errFound) {
			fmt.Fprintln(stderr, err)
		}
		return exitFaults
	}
	fmt.Fprintf(stderr, "%v\nSee %s --help\n", err, cmd.CommandPath())
	return exitUsage
}

func newRoot(kill *interrupts) *cobra.Command {
	root := &cobra.Command{
		Use:   "inletctl",
		Short: "Run, check and look into Inlet",
		Long: `inletctl is the tool for people who run Inlet.

Exit codes: 0 all is well, 1 faults were found or something failed, 2 the command line cannot be understood.`,
		Version:           version.String(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.AddCommand(runCommand(kill), demoCommand(kill), doctorCommand(), checkCommand(), installCommand(), schemaCommand(), convertCommand(), quotaCommand())
	groups(root)
	return root
}

// failure is an error of what a command did; all others are about the command line.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// usageError is an error of a command's own code that is about the command line.
type usageError struct{ error }

// errFound: faults were found, and have been printed.
var errFound = errors.New("faults were found")

// faults makes errors of a command failures, apart from usage errors.
func faults(f func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := f(cmd, args)
		var usage usageError
		if err == nil || errors.As(err, &usage) {
			return err
		}
		return failure{err}
	}
}
