#!/usr/bin/env bash
# `egctl x translate` makes a 500 of every route with a wasm plugin, and exits with 0. It does not read the endpoints of Services either.
#
# Expected: what Envoy Gateway's own tool translates offline is what Envoy Gateway serves. What it cannot translate is an error.
# Seen (egctl 1.9.1, --to xds): an EnvoyExtensionPolicy with a wasm plugin, from an image or a URL, makes the route a direct response 500. Nothing
# on stderr, exit code 0. Only the status of the policy, which --to gateway-api prints, has "wasm cache is not initialized"; the route is
# Accepted. EndpointSlices in the file are ignored: each Service is one endpoint, its cluster IP, even with routingType Endpoint, and
# a Service without endpoints has a cluster and a route like any other.
# Why it matters to a gateway: a check of manifests that translates them and looks at the exit code passes for routes that are all 500 in its own
# output. What it shows has neither the replicas that a load balancer chooses among nor a pool that is scaled to zero.
# The first build of egctl takes minutes.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
GOBIN="$dir" CGO_ENABLED=0 go install -trimpath -ldflags='-s -w' github.com/envoyproxy/gateway/cmd/egctl@v1.9.1
go version -m egctl | grep -w mod
cat >gateway.yaml <<'YAML'
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: class}
spec:
  controllerName: gateway.envoyproxy.io/gatewayclass-controller
  parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: proxy, namespace: default}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: proxy, namespace: default}
spec: {routingType: Endpoint}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gateway, namespace: default}
spec:
  gatewayClassName: class
  listeners: [{name: http, protocol: HTTP, port: 80}]
YAML
backend() { # backend NAME IP ENDPOINTS: a Service with endpoints, and a route to it
  cat <<YAML
---
apiVersion: v1
kind: Service
metadata: {name: $1, namespace: default}
spec: {clusterIP: $2, ports: [{name: http, port: 8000, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: $1, namespace: default, labels: {kubernetes.io/service-name: $1}}
addressType: IPv4
ports: [{name: http, port: 8000, protocol: TCP}]
endpoints: $3
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: $1, namespace: default}
spec:
  parentRefs: [{name: gateway}]
  rules: [{matches: [{path: {value: /$1}}], backendRefs: [{name: $1, port: 8000}]}]
YAML
}
plugin() { # plugin NAME CODE: a policy with a wasm plugin for the route of that name
  cat <<YAML
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyExtensionPolicy
metadata: {name: $1, namespace: default}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: $1}]
  wasm: [{name: plugin, code: $2}]
YAML
}
two='[{addresses: [10.1.0.1], conditions: {ready: true}}, {addresses: [10.1.0.2], conditions: {ready: true}}]'
zeros=$(printf '0%.0s' {1..64})
{
  backend two 10.96.0.2 "$two"
  backend none 10.96.0.3 '[]'
  backend image 10.96.0.4 "$two"
  plugin image "{type: Image, image: {url: images.example/plugin@sha256:$zeros}}"
  backend url 10.96.0.5 "$two"
  plugin url "{type: HTTP, http: {url: http://files.example/plugin.wasm, sha256: '$zeros'}}"
} >>gateway.yaml
translate() { ./egctl x translate --from gateway-api --to "$1" -o json -f gateway.yaml; }
code=0
translate xds >xds.json 2>stderr || code=$?
translate gateway-api >status.json
cat >show.py <<'PY'
import json
configs = {c["@type"].split(".")[-1]: c for c in json.load(open("xds.json"))["xds"]["default/gateway"]["configs"]}
name = lambda long: long.split("/")[2]
for r in configs["RoutesConfigDump"]["dynamicRouteConfigs"][0]["routeConfig"]["virtualHosts"][0]["routes"]:
    print(f"route {name(r['name'])}:", r["directResponse"]["status"] if "directResponse" in r else "cluster " + name(r["route"]["cluster"]))
for e in configs["EndpointsConfigDump"]["dynamicEndpointConfigs"]:
    e = e["endpointConfig"]
    print(f"endpoints of {name(e['clusterName'])}:", *(h["endpoint"]["address"]["socketAddress"]["address"] for l in e["endpoints"] for h in l["lbEndpoints"]))
status = json.load(open("status.json"))
for kind, parents in (("envoyExtensionPolicies", "ancestors"), ("httpRoutes", "parents")):
    for o in status[kind]:
        c = next(c for c in o["status"][parents][0]["conditions"] if c["type"] == "Accepted")
        print(f"{kind} {o['metadata']['name']}: Accepted {c['status']}, {c['message']}")
PY
{
  echo "exit code $code, $(wc -l <stderr) lines on stderr"
  python3 show.py | sort
} | tee seen
diff - seen <<'WANT'
exit code 0, 0 lines on stderr
endpoints of image: 10.96.0.4
endpoints of none: 10.96.0.3
endpoints of two: 10.96.0.2
endpoints of url: 10.96.0.5
envoyExtensionPolicies image: Accepted False, Wasm: wasm cache is not initialized.
envoyExtensionPolicies url: Accepted False, Wasm: wasm cache is not initialized.
httpRoutes image: Accepted True, Route is accepted
httpRoutes none: Accepted True, Route is accepted
httpRoutes two: Accepted True, Route is accepted
httpRoutes url: Accepted True, Route is accepted
route image: 500
route none: cluster none
route two: cluster two
route url: 500
WANT
