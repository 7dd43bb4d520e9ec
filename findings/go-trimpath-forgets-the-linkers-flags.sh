#!/usr/bin/env bash
# With -trimpath, Go's build information has neither -ldflags nor CGO_LDFLAGS: two programs that behave differently have the same.
#
# Expected: -trimpath removes paths, as its help says. What `go version -m` prints is how a program was built, and its settings tell
# apart what was built differently.
# Seen (Go 1.26): without -trimpath, -ldflags and the CGO_ variables are listed. With it they are missing, also if there is no path in them, while
# -gcflags and -tags stay. A variable that the linker sets with -X changes what the program does, and the build information is equal to the byte.
# Why it matters to a gateway: releases are built with -trimpath. Whether the linker has set a default of the Go runtime in a library that runs inside
# Envoy (godebug settings such as cgocheck), or a version, cannot be checked there. What has to be known later has to be written
# into the program, or into a file beside it.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
export CGO_ENABLED=1 GOFLAGS=
printf 'module example.com/mode\n\ngo 1.26.0\n' >go.mod
cat >main.go <<'GO'
package main

import "C"
import "fmt"

var mode = "strict"

func main() { fmt.Println(mode) }
GO
build() { # build OUTPUT FLAGS...
  CGO_LDFLAGS=-lm go build -tags=a -gcflags=-l -o "$@" .
}
build paths -ldflags='-X main.mode=lax'
build lax -trimpath -ldflags='-X main.mode=lax'
build strict -trimpath
settings() { go version -m "$1" | grep -P '\tbuild\t-?(ldflags|gcflags|tags|trimpath|CGO_LDFLAGS)='; }
go version
{
  for p in paths lax strict; do
    echo "$p says $(./$p):" $(settings $p | cut -f 3)
  done
  cmp -s <(go version -m lax | tail -n +2) <(go version -m strict | tail -n +2) && echo "lax and strict: the same build information"
} | tee seen
diff - seen <<'WANT'
paths says lax: -gcflags=-l -ldflags="-X main.mode=lax" -tags=a CGO_LDFLAGS=-lm
lax says lax: -gcflags=-l -tags=a -trimpath=true
strict says strict: -gcflags=-l -tags=a -trimpath=true
lax and strict: the same build information
WANT
