#!/usr/bin/env bash
# Go's resolver reports a DNS server's failure as "no such host" when it queries both address families.
#
# Expected: a name server that responds SERVFAIL for A gives a temporary error; IsNotFound is for NXDOMAIN and for names
# without records.
# Seen (Go's own resolver, the go on the path; 1.26.8 when written): for a name whose A query fails with SERVFAIL and whose AAAA query
# returns no records (as for every IPv4-only name), LookupNetIP(ctx, "ip", "replicas.example.") returns "no such
# host" with IsNotFound true and IsTemporary false. With "ip4", or with Resolver.StrictErrors, the same name gives "server misbehaving",
# IsNotFound false, IsTemporary true.
# Why it matters to a gateway: if "not found" means "scaled to zero", a short failure of the name server empties the pool.
# Query each family separately, or set StrictErrors.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'MOD'
module lookup

go 1.26

require golang.org/x/net v0.57.0
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

	"golang.org/x/net/dns/dnsmessage"
)

// serve answers A with a server failure, and all else with no records.
func serve(conn net.PacketConn) {
	buffer := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		var query dnsmessage.Message
		if query.Unpack(buffer[:n]) != nil || len(query.Questions) == 0 {
			continue
		}
		answer := dnsmessage.Message{Header: dnsmessage.Header{ID: query.ID, Response: true, RecursionAvailable: true}, Questions: query.Questions}
		if query.Questions[0].Type == dnsmessage.TypeA {
			answer.RCode = dnsmessage.RCodeServerFailure
		}
		if packed, err := answer.Pack(); err == nil {
			_, _ = conn.WriteTo(packed, from)
		}
	}
}

func main() {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	go serve(conn)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}
	fmt.Println(runtime.Version())
	ok := true
	for _, c := range []struct {
		family           string
		strict, notFound bool
	}{{"ip", false, true}, {"ip4", false, false}, {"ip", true, false}} {
		resolver := &net.Resolver{PreferGo: true, StrictErrors: c.strict, Dial: dial}
		_, err := resolver.LookupNetIP(context.Background(), c.family, "replicas.example.")
		var told *net.DNSError
		if !errors.As(err, &told) {
			fmt.Println("no DNS error:", err)
			os.Exit(1)
		}
		fmt.Printf("%-3s StrictErrors %-5v: %s (IsNotFound %v, IsTemporary %v)\n", c.family, c.strict, told.Err, told.IsNotFound, told.IsTemporary)
		ok = ok && told.IsNotFound == c.notFound && told.IsTemporary == !c.notFound
	}
	if !ok {
		fmt.Println("the behavior has changed")
		os.Exit(1)
	}
}
GO
go mod tidy >log 2>&1 || { cat log; exit 1; }
go run .
