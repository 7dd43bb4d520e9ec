// Command hostcalls prints what a wasm filter's calls of its host cost in a real Envoy.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "hostcalls:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	root, err := stack.Root()
	if err != nil {
		return err
	}
	plugin := stack.WasmPlugin
	plugin.File, plugin.Module, plugin.Package = "hostcalls.wasm", "bench", "./hostcalls/plugin"
	if err := stack.Build(ctx, root, os.Stderr, plugin); err != nil {
		return err
	}
	s, err := stack.Start(ctx, stack.Options{ABI: stack.Wasm, Plugin: plugin.Path(root), Workers: 1, NoCompanion: true, Progress: os.Stderr})
	if err != nil {
		return err
	}
	defer s.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+"/v1/models", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, res.Body)
	return errors.Join(err, res.Body.Close())
}
