// Package e2e_test runs Inlet in a real Envoy, in both builds.
package e2e_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

func TestMain(m *testing.M) {
	if err := buildPlugins(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(stack.Sharing(m))
}
