package chost_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inlet-proxy/inlet/shared/adapters/golang/chost"
)

// program and plugin are built once.
var program, plugin string

func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "chost")
	if err == nil {
		program, err = chost.Build(context.Background(), folder)
	}
	if err == nil {
		plugin = filepath.Join(folder, "inlet-golang.so")
		build := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", plugin, "../../../../cmd/bundle-golang")
		build.Env = append(os.Environ(), "CGO_ENABLED=1")
		var out []byte
		if out, err = build.CombinedOutput(); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(folder)
	os.Exit(code)
}

func start(t *testing.T, workers int) *chost.Host {
	t.Helper()
	h, err := chost.Start(program, plugin, workers)
	require.NoError(t, err)
	t.Cleanup(func() {
		err := h.Close()
		if t.Failed() {
			lines := h.Log()
			t.Logf("%q", lines[:min(50, len(lines))])
		}
		require.NoError(t, err)
	})
	return h
}

// settings are a plugin_config.
func settings(t *testing.T, document string, clusters map[string]any) *anypb.Any {
	t.Helper()
	s, err := structpb.NewStruct(map[string]any{"config": document, "clusters": clusters})
	require.NoError(t, err)
	message, err := anypb.New(s)
	require.NoError(t, err)
	return message
}

func itoa(n int) string { return strconv.Itoa(n) }
