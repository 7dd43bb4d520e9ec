#!/usr/bin/env bash
# The maintained brotli decoder in Go links an HTTP server and TLS into everything that decodes brotli.
#
# Expected: a decoder for a compression format imports io and little else. What is not called is left out by the linker.
# Seen (github.com/andybalholm/brotli 1.3.0, Go 1.26, GOOS=wasip1 -buildmode=c-shared): the package also has helpers for
# net/http, whose initialization the linker keeps. A wasm module that only decodes gets more than 2 MB larger than one with
# a gzip decoder, and asks its host for files (path_open), which Go's gzip does not.
# Why it matters to a gateway: a filter in wasm is compiled and held in memory by every proxy, so a request encoding that
# few clients use costs every one of them. The files are one more thing that a host of wasm plugins must offer.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
module() { # module NAME IMPORT: a module that has a decoder
  mkdir "$1"
  printf 'module example.com/%s\n\ngo 1.26.0\n' "$1" >"$1/go.mod"
  [ "$1" = gzip ] || echo 'require github.com/andybalholm/brotli v1.3.0' >>"$1/go.mod"
  cat >"$1/main.go" <<GO
package main

import (
	"bytes"
	"io"

	"$2"
)

//go:wasmexport decode
func decode() int32 {
	$3
	b, _ := io.ReadAll(r)
	return int32(len(b))
}

func main() {}
GO
  (cd "$1" && go mod tidy >/dev/null 2>&1 && GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags='-s -w' -o "../$1.wasm" .)
}
module gzip compress/gzip 'r, _ := gzip.NewReader(bytes.NewReader(nil))'
module brotli github.com/andybalholm/brotli 'r := brotli.NewReader(bytes.NewReader(nil))'
size() { wc -c <"$1"; }
{
  echo "larger by more than 2 MB: $([ $(($(size brotli.wasm) - $(size gzip.wasm))) -gt 2000000 ] && echo yes || echo no)"
  for f in gzip brotli; do
    echo "$f: net/http linked: $(cd $f && GOOS=wasip1 GOARCH=wasm go list -deps . | grep -cx net/http || true), asks for path_open: $(grep -ac path_open $f.wasm | sed 's/^[1-9].*/1/' || true)"
  done
} | tee seen
ls -l gzip.wasm brotli.wasm | awk '{print $5, $9}'
diff - seen <<'WANT'
larger by more than 2 MB: yes
gzip: net/http linked: 0, asks for path_open: 0
brotli: net/http linked: 1, asks for path_open: 1
WANT
