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

	"golang.org/x/sync/errgroup"

	"github.com/inlet-proxy/inlet/internal/companion/barrier"
)

// Name is a DNS name as the source of one pool.
type Name struct {
	Pool     string
	Host     string        // its A or AAAA records are the replicas
	Port     int           // of the replicas, with Host
	SRV      string        // in place of Host and Port: its SRV records are the replicas
	Family   string        // FamilyAuto, FamilyIPv4 or FamilyIPv6
	Interval time.Duration // between two lookups, varied by a tenth
}

// Address families. A host usually has the same replicas in both, so one is used: with FamilyAuto IPv4, or IPv6 if there is none.
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

const (
	// lookupTime bounds one lookup.
	lookupTime = 5 * time.Second
	// gone is how many consecutive responses that there is no such name it takes to empty a list that was not: a DNS server that was just
	// restarted says so too, for a moment.
	gone = 3
)

// SystemResolver is the system's, set up so that a server failure is not mistaken for a name that does not exist.
var SystemResolver Resolver = &net.Resolver{StrictErrors: true}

// Resolve looks the names up again and again. It calls loaded with each list that differs from the previous one, and failed when a lookup
// starts to fail: then the known list stays. A name that does not exist is an empty list, since the service of a pool without replicas has
// no records: at once if there was none before, otherwise after some such responses in a row. A target of SRV records that cannot be
// resolved is skipped. Both functions are called from several goroutines. Resolve returns when ctx ends.
func Resolve(ctx context.Context, names []Name, r Resolver, log *slog.Logger, loaded func(pool string, a *Assignment), failed func(pool string, err error)) {
	var wait sync.WaitGroup
	for _, n := range names {
		wait.Go(func() {
			barrier.Run(ctx, log, "the lookups of "+n.String(), func() { n.follow(ctx, r, log, loaded, failed) })
		})
	}
	wait.Wait()
}

func (n Name) follow(ctx context.Context, r Resolver, log *slog.Logger, loaded func(string, *Assignment), failed func(string, error)) {
	log = log.With("pool", n.Pool, "name", n.String())
	timer := time.NewTimer(0)
	defer timer.Stop()
	var before memory
	var last []Endpoint
	known, reason := false, ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(n.Interval + time.Duration((rand.Float64()-0.5)*0.2*float64(n.Interval)))
		found, holds, err := n.lookup(ctx, r, &before)
		if ctx.Err() != nil {
			return
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if err != nil && text != reason { // logged once, not at every lookup
			log.Error("DNS lookup failed; "+instead(known || holds), "reason", err)
			failed(n.Pool, err)
		}
		reason = text
		if !holds || known && slices.Equal(found, last) {
			continue
		}
		known, last = true, found
		log.Info("endpoints changed", "count", len(found))
		loaded(n.Pool, &Assignment{Endpoints: slices.Clone(found)})
	}
}

// memory is what is known about a name and the targets of its SRV records from earlier lookups.
type memory struct {
	records known[*net.SRV]
	hosts   map[string]*known[netip.Addr]
}

// known is what holds for a name.
type known[T any] struct {
	list   []T
	is     bool // something holds
	missed int  // consecutive responses that there is no such name
}

// record takes the result of a lookup, and reports whether anything holds after it.
func (k *known[T]) record(list []T, err error) bool {
	switch {
	case err == nil:
		*k = known[T]{list: list, is: true}
	case !notFound(err):
		k.missed = 0
	default:
		if k.missed++; !k.is || k.missed >= gone {
			k.list, k.is = nil, true
		}
	}
	return k.is
}

// recordAddresses is record for a host. One that had IPv4 addresses and now has only IPv6 ones has lost the others, which takes as many responses
// to believe as losing all.
func recordAddresses(k *known[netip.Addr], list []netip.Addr, err error) {
	if err == nil && len(list) > 0 && len(k.list) > 0 && k.list[0].Unmap().Is4() && !list[0].Unmap().Is4() {
		if k.missed++; k.missed < gone {
			return
		}
	}
	k.record(list, err)
}

// notFound reports whether a server said that there is no such name, or no such record. Any other error says nothing about the name.
func notFound(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsNotFound && !dns.IsTemporary && !dns.IsTimeout
	}
	return errors.As(err, new(*net.AddrError)) // of a name in the hosts file, or an address, of the other family
}

// String returns the name that is looked up.
func (n Name) String() string {
	if n.SRV != "" {
		return n.SRV
	}
	return n.Host
}

// Lookup looks the name up once. The endpoints are sorted, each address once, and all usable. Targets of SRV records that cannot be
// resolved are skipped; it is an error if none can.
func (n Name) Lookup(ctx context.Context, r Resolver) ([]Endpoint, error) {
	a, err := n.Ask(ctx, r)
	if err != nil {
		return nil, err
	}
	return a.Endpoints, nil
}

// Ask is like Lookup and also returns what was skipped.
func (n Name) Ask(ctx context.Context, r Resolver) (*Assignment, error) {
	found, _, err := n.lookup(ctx, r, new(memory))
	if err != nil && len(found) == 0 {
		return nil, err
	}
	return &Assignment{Endpoints: found, Skipped: err}, nil
}

// lookup looks the name up again. It returns what holds now, whether anything does, and what could not be resolved.
func (n Name) lookup(ctx context.Context, r Resolver, before *memory) (found []Endpoint, holds bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	if n.SRV == "" {
		errs := n.lookupHosts(ctx, r, []string{n.Host}, before)
		k := before.hosts[n.Host]
		return endpointsAt(k.list, n.Port, 0), k.is, errs
	}
	_, records, err := r.LookupSRV(ctx, "", "", n.SRV)
	failed := err
	if len(records) > 0 {
		failed = nil // the error is about other records, whose names are invalid
	}
	if !before.records.record(records, failed) {
		return nil, false, err
	}
	records, portless := n.withPort(before.records.list)
	err = errors.Join(err, portless)
	hosts := targetsOf(records)
	if missed := n.lookupHosts(ctx, r, hosts, before); missed != nil {
		err = errors.Join(err, fmt.Errorf("target of %s: %w", n.SRV, missed))
	}
	holds = portless == nil
	for _, record := range records {
		if k := before.hosts[targetOf(record)]; k != nil {
			holds = holds && k.is
			found = append(found, endpointsAt(k.list, int(record.Port), record.Priority)...)
		}
	}
	found = merge(found)
	return found, holds || len(found) > 0, err
}

// withPort returns the records that have a port, and an error for the others. A target of a single dot needs none.
func (n Name) withPort(records []*net.SRV) (usable []*net.SRV, portless error) {
	for _, record := range records {
		if host := targetOf(record); record.Port == 0 && host != "" {
			portless = errors.Join(portless, fmt.Errorf("target of %s: %s has port 0", n.SRV, host))
			continue
		}
		usable = append(usable, record)
	}
	return usable, portless
}

// targetsOf returns the hosts of records, each once. A target of a single dot means that the service is not available (RFC 2782).
func targetsOf(records []*net.SRV) (hosts []string) {
	for _, record := range records {
		if host := targetOf(record); host != "" && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

func targetOf(record *net.SRV) string { return strings.TrimSuffix(record.Target, ".") }

// atOnce is how many hosts are looked up at a time, so that one whose server does not respond does not delay the others.
const atOnce = 16

// lookupHosts looks up hosts, and remembers what holds for these and no others. It returns what could not be resolved.
func (n Name) lookupHosts(ctx context.Context, r Resolver, hosts []string, before *memory) error {
	addresses, errs := make([][]netip.Addr, len(hosts)), make([]error, len(hosts))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, host := range hosts {
		group.Go(func() error {
			defer func() {
				if p := recover(); p != nil {
					errs[i] = fmt.Errorf("panic: %v", p)
				}
			}()
			addresses[i], errs[i] = n.lookupHost(ctx, r, host)
			return nil
		})
	}
	_ = group.Wait()
	now := make(map[string]*known[netip.Addr], len(hosts))
	for i, host := range hosts {
		if now[host] = before.hosts[host]; now[host] == nil {
			now[host] = new(known[netip.Addr])
		}
		recordAddresses(now[host], addresses[i], errs[i])
	}
	before.hosts = now
	return errors.Join(errs...)
}

// lookupHost returns the addresses of a host, of one family: the second one only if it has none of the first.
func (n Name) lookupHost(ctx context.Context, r Resolver, host string) (addresses []netip.Addr, err error) {
	families := map[string][]string{FamilyIPv4: {"ip4"}, FamilyIPv6: {"ip6"}}[n.Family]
	if families == nil {
		families = []string{"ip4", "ip6"} // separately: a response about one must not hide that there is none about the other
	}
	for _, family := range families {
		if addresses, err = r.LookupNetIP(ctx, family, host); !notFound(err) {
			break
		}
	}
	return addresses, err
}

func endpointsAt(addresses []netip.Addr, port int, priority uint16) []Endpoint {
	var found []Endpoint
	for _, a := range addresses {
		found = append(found, Endpoint{Address: netip.AddrPortFrom(a.Unmap(), uint16(port)).String(), Usable: true, Priority: priority})
	}
	return merge(found)
}

// Static returns the assignment of a fixed list of ip:port.
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
