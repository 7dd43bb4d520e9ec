#!/usr/bin/env bash
# go-redis without retries still tries to connect five times for each command.
#
# Expected: with MaxRetries -1 (no retries), a command to an address where nobody listens fails with the first refused connection.
# Seen (github.com/redis/go-redis/v9 9.23.0): the pool connects five times, 100 ms apart (DialerRetries, DialerRetryTimeout), whatever
# MaxRetries is: 0.4 s until the error. With the default of three retries one GET connects 20 times and takes almost 2 s.
# DialerRetries 1 gives what one expects: one connection, an error at once.
# Why it matters to a gateway: while its store is down, each decision that asks it waits that long before the gateway's own rule for a
# failed store applies.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'MOD'
module dials

go 1.26

require github.com/redis/go-redis/v9 v9.23.0
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	_ = l.Close() // nobody listens there now
	fmt.Println(runtime.Version(), "go-redis", redis.Version())
	ok := true
	for _, c := range []struct {
		name string
		redis.Options
		want int
	}{
		{"defaults", redis.Options{}, 20},
		{"MaxRetries -1", redis.Options{MaxRetries: -1}, 5},
		{"MaxRetries -1, DialerRetries 1", redis.Options{MaxRetries: -1, DialerRetries: 1}, 1},
	} {
		dials := 0
		c.Addr = l.Addr().String()
		c.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
			dials++
			return new(net.Dialer).DialContext(ctx, network, address)
		}
		client := redis.NewClient(&c.Options)
		start := time.Now()
		err := client.Get(context.Background(), "key").Err()
		fmt.Printf("%s: GET connected %d times, %v\n", c.name, dials, time.Since(start).Round(time.Millisecond))
		_ = client.Close()
		ok = ok && dials == c.want && errors.Is(err, syscall.ECONNREFUSED)
	}
	if !ok {
		fmt.Println("the behavior has changed")
		os.Exit(1)
	}
}
GO
go mod tidy >log 2>&1 || { cat log; exit 1; }
go run .
