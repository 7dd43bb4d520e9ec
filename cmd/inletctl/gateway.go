package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// gatewayFlags are the flags of the commands that start a gateway.
type gatewayFlags struct {
	abi, companion, config, envoy string
	port, workers                 int
}

// Where the companion runs.
const (
	process  = "process"
	embedded = "embedded"
)

// variables are the environment variables that set a flag which the command line does not.
var variables = map[string]string{"abi": "ABI", "companion": "COMPANION", "port": "PORT", "config": "CONFIG", "workers": "WORKERS", "envoy": "ENVOY"}

// add declares the flags. own: the gateway has a port and a configuration of the user's choice.
func (g *gatewayFlags) add(f *pflag.FlagSet, own bool) {
	f.SortFlags = false
	f.StringVar(&g.abi, "abi", stack.Wasm, "how Inlet is built: wasm, or module for the native dynamic module [ABI]")
	f.StringVar(&g.companion, "companion", process, "where the companion runs: process, or embedded for one inside Envoy, with the module [COMPANION]")
	if own {
		f.IntVar(&g.port, "port", 8080, "where Envoy listens, on 127.0.0.1 [PORT]")
		f.StringVar(&g.config, "config", "", "file with the chain's configuration (default envoy/static/inlet.yaml) [CONFIG]")
	}
	f.IntVar(&g.workers, "workers", 2, "worker threads of Envoy [WORKERS]")
	f.StringVar(&g.envoy, "envoy", "", "Envoy binary to use [ENVOY]")
}

// options reads the flags, and the environment for those that were not given.
func (g *gatewayFlags) options(cmd *cobra.Command) (stack.Options, error) {
	said := map[string]string{} // how the user has said it
	var wrong error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		variable, ok := variables[f.Name]
		value := os.Getenv(variable)
		if said[f.Name] = "--" + f.Name; !ok || f.Changed || value == "" {
			return
		}
		said[f.Name] = variable
		if err := f.Value.Set(value); err != nil && wrong == nil {
			wrong = usageError{fmt.Errorf("%s=%s: %w", variable, value, err)}
		}
	})
	o := stack.Options{ABI: g.abi, Port: g.port, Workers: g.workers, Envoy: g.envoy, Embedded: g.companion == embedded, Progress: os.Stderr}
	switch {
	case wrong != nil:
		return o, wrong
	case !slices.Contains([]string{stack.Wasm, stack.Module, stack.None}, g.abi):
		return o, usageError{fmt.Errorf("%s=%s: it is wasm or module (or none, for Envoy without Inlet)", said["abi"], g.abi)}
	case g.companion != process && g.companion != embedded:
		return o, usageError{fmt.Errorf("%s=%s: it is process or embedded", said["companion"], g.companion)}
	case g.companion == embedded && g.abi != stack.Module:
		return o, usageError{fmt.Errorf("%s=embedded needs the native module: say --abi=module (or ABI=module) too. A wasm plugin has no threads and no sockets of its own", said["companion"])}
	case said["port"] != "" && (g.port < 1 || g.port > 65535):
		return o, usageError{fmt.Errorf("%s=%d: it is a number from 1 to 65535", said["port"], g.port)}
	case g.workers < 1 || g.workers > 1024:
		return o, usageError{fmt.Errorf("%s=%d: it is a number from 1 to 1024", said["workers"], g.workers)}
	}
	if g.envoy != "" {
		file, err := exec.LookPath(g.envoy)
		if err == nil {
			o.Envoy, err = filepath.Abs(file)
		}
		if err != nil {
			return o, usageError{fmt.Errorf("%s=%s is not an executable file", said["envoy"], g.envoy)}
		}
	}
	if g.config != "" {
		text, err := os.ReadFile(g.config)
		if err != nil {
			return o, usageError{fmt.Errorf("%s: %w", said["config"], err)}
		}
		o.Chain = string(text)
	}
	return o, nil
}
