// Command getenvoy prints the path of an Envoy binary, and downloads it if this
// machine has none.
//
//	go run ./e2e/getenvoy                   the one that Inlet is tested with, or the user's own
//	go run ./e2e/getenvoy --version 1.39.3  exactly that one
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/inlet-proxy/inlet/e2e/envoybin"
)

func main() {
	version := flag.String("version", "", "exactly this version, whatever ENVOY and PATH hold")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	path, err := envoybin.Find(ctx, envoybin.Options{Version: *version, Progress: os.Stderr})
	if err != nil {
		fmt.Fprintln(os.Stderr, "getenvoy:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has run
	}
	fmt.Println(path)
}
