package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// serveImage is a registry with the plugin's image, for tests: in plain HTTP, until the process is ended.
func serveImage(plugin, address string, out io.Writer) error {
	text, err := os.ReadFile(plugin)
	if err != nil {
		return err
	}
	image, err := pluginImage(text)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: registry.New(), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	to, err := name.ParseReference(l.Addr().String() + "/inlet-wasm:dev")
	if err != nil {
		return err
	}
	if err := remote.Write(to, image); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "registry listening on %s\n", l.Addr()); err != nil {
		return err
	}
	return <-done
}
