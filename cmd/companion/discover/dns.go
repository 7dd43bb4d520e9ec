package discover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Name is the source of one pool in the DNS.
type Name struct {
	Pool     string
	Host     string        // its A or AAAA records are the replicas
	Port     int           // of the replicas, with Host
	SRV      string        // in place of Host and Port: its SRV records are the replicas
	Family   string        // FamilyAuto, FamilyIPv4 or FamilyIPv6
	Interval time.Duration // between two look-ups, each varied by a tenth
}

// Families of addresses. A host has the same replicas in both as a rule, so one is taken: by FamilyAuto IPv4, or IPv6 if there is none.
const (
	FamilyAuto = "auto"
	FamilyIPv4 = "ipv4"
	FamilyIPv6 = "ipv6"
)

// Resolver is the part of net.Resolver that is needed.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// lookupTime bounds one look-up.
const lookupTime = 5 * time.Second

// Resolve looks the names up, again and again. It calls loaded with each list that is another than before, and failed when a look-up fails
// that did not fail before: then the last list stays. A name that is not there counts as an empty list as long as there was none: the
// service of a pool without replicas has no records. Both are called from several goroutines. Resolve returns when ctx ends.
func Resolve(ctx context.Context, names []Name, r Resolver, log *slog.Logger, loaded func(pool string, a *Assignment), failed func(pool string, err error)) {
	var wait sync.WaitGroup
	for _, n := range names {
		wait.Go(func() { n.follow(ctx, r, log, loaded, failed) })
	}
	wait.Wait()
}

func (n Name) follow(ctx context.Context, r Resolver, log *slog.Logger, loaded func(string, *Assignment), failed func(string, error)) {
	log = log.With("pool", n.Pool, "name", n.String())
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last []Endpoint
	known, reason := false, ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(n.Interval + time.Duration((rand.Float64()-0.5)*0.2*float64(n.Interval)))
		found, err := n.Lookup(ctx, r)
		if ctx.Err() != nil {
			return
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if err != nil && text != reason { // said once, not at every look
			log.Error("look-up failed, the last good list stays", "reason", err)
			failed(n.Pool, err)
		}
		reason = text
		var dns *net.DNSError
		if err != nil && (known || !errors.As(err, &dns) || !dns.IsNotFound) {
			continue
		}
		if known && slices.Equal(found, last) {
			continue
		}
		known, last = true, found
		log.Info("endpoints", "count", len(found))
		loaded(n.Pool, &Assignment{Endpoints: slices.Clone(found)})
	}
}

// String returns the name that is looked up.
func (n Name) String() string {
	if n.SRV != "" {
		return n.SRV
	}
	return n.Host
}

// Lookup looks the name up once. The endpoints are sorted, each address once, and all usable.
func (n Name) Lookup(ctx context.Context, r Resolver) ([]Endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	var found []Endpoint
	if n.SRV == "" {
		return n.lookupHost(ctx, r, n.Host, n.Port)
	}
	_, records, err := r.LookupSRV(ctx, "", "", n.SRV)
	if err != nil {
		return nil, err
	}
	for _, record := range records {
		if record.Target == "." {
			continue // RFC 2782: the service is decidedly not available
		}
		at, err := n.lookupHost(ctx, r, strings.TrimSuffix(record.Target, "."), int(record.Port))
		if err != nil {
			return nil, fmt.Errorf("target of %s: %w", n.SRV, err)
		}
		found = append(found, at...)
	}
	return merge(found), nil
}

func (n Name) lookupHost(ctx context.Context, r Resolver, host string, port int) ([]Endpoint, error) {
	network := map[string]string{FamilyIPv4: "ip4", FamilyIPv6: "ip6"}[n.Family]
	if network == "" {
		network = "ip"
	}
	addresses, err := r.LookupNetIP(ctx, network, host)
	if err != nil {
		return nil, err
	}
	isIPv4 := func(a netip.Addr) bool { return a.Unmap().Is4() }
	anyIPv4 := slices.ContainsFunc(addresses, isIPv4)
	var found []Endpoint
	for _, a := range addresses {
		if network == "ip" && anyIPv4 && !isIPv4(a) {
			continue
		}
		found = append(found, Endpoint{Address: netip.AddrPortFrom(a.Unmap(), uint16(port)).String(), Usable: true})
	}
	return merge(found), nil
}

// Static returns the assignment of a fixed list of ip:port, of which each must be one.
func Static(addresses []string) (*Assignment, error) {
	a := new(Assignment)
	for _, text := range addresses {
		address, err := netip.ParseAddrPort(text)
		if err != nil || address.Port() == 0 {
			return nil, fmt.Errorf("%q is not ip:port", text)
		}
		a.Endpoints = append(a.Endpoints, Endpoint{Address: address.String(), Usable: true})
	}
	a.Endpoints = merge(a.Endpoints)
	return a, nil
}
