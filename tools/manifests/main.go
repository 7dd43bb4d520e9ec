// Command manifests renders what stands in envoy/gateway and envoy/charts, with the libraries of Kustomize and Helm, and makes the image of the
// wasm plugin. It is a module of its own, so that Inlet does not depend on those libraries.
//
//	manifests kustomize envoy/gateway/module
//	manifests chart envoy/charts/inlet inlet values.yaml
//	manifests image dist/inlet.wasm dist/image-wasm
//	manifests registry dist/inlet.wasm 127.0.0.1:0
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "manifests:", err)
		os.Exit(1)
	}
}

const usage = `it takes "kustomize FOLDER", "chart FOLDER NAMESPACE [VALUES...]", "image PLUGIN FOLDER", or "registry PLUGIN ADDRESS"`

func run(args []string, out io.Writer) error {
	if len(args) < 2 {
		return errors.New(usage)
	}
	switch what, rest := args[0], args[1:]; {
	case what == "kustomize" && len(rest) == 1:
		text, err := kustomized(rest[0])
		if err != nil {
			return err
		}
		_, err = out.Write(text)
		return err
	case what == "chart" && len(rest) > 1:
		text, err := charted(rest[0], rest[1], rest[2:])
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, text)
		return err
	case what == "registry" && len(rest) == 2:
		return serveImage(rest[0], rest[1], out)
	case what == "image" && len(rest) == 2:
		digest, err := writeImage(rest[0], rest[1])
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(out, digest)
		return err
	}
	return errors.New(usage)
}
