#!/usr/bin/env bash
# `go version -m` and debug/buildinfo cannot read a wasm module, although the build information is in it.
#
# Expected: Go puts the list of modules into everything that it links, and `go version -m FILE` prints it for every output of
# `go build`; tools for bills of materials rely on that.
# Seen (Go 1.26, GOOS=wasip1 -buildmode=c-shared): `go version -m` prints the modules of the native program. For the wasm module
# from the same source it prints nothing at all, and only its exit code is 1; for a file that may be executed it says "unrecognized
# file format". The text is in the wasm file all the same.
# Why it matters to a gateway: the wasm module is the file that runs in the proxy. An SBOM or a vulnerability scan that
# reads binaries misses exactly that one, and may say nothing about it.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'MOD'
module example.com/filter

go 1.26.0

require github.com/cespare/xxhash/v2 v2.3.0
MOD
cat >main.go <<'GO'
package main

import "github.com/cespare/xxhash/v2"

var sum = xxhash.Sum64String("x")

func main() { println(sum) }
GO
go mod tidy >/dev/null 2>&1
go build -o native .
GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o filter.wasm .
{
  echo "native: $(go version -m native | grep -c xxhash) line names the dependency"
  chmod -x filter.wasm
  echo "wasm: $(go version -m filter.wasm 2>&1 | wc -l) lines, exit code $(go version -m filter.wasm >/dev/null 2>&1 && echo 0 || echo $?)"
  chmod +x filter.wasm
  echo "wasm, executable: $(go version -m filter.wasm 2>&1 | grep -o 'unrecognized file format')"
  echo "wasm: the file has the text $(grep -ac 'dep.*github.com/cespare/xxhash/v2' filter.wasm | sed 's/^[1-9][0-9]*$/at least/') once"
} | tee seen
diff - seen <<'WANT'
native: 1 line names the dependency
wasm: 0 lines, exit code 1
wasm, executable: unrecognized file format
wasm: the file has the text at least once
WANT
