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

const (
	// lookupTime bounds one look-up.
	lookupTime = 5 * time.Second
	// gone is how many answers in a row that there is no such name it takes to believe that one which was there is empty now: a server that
	// is started anew says so too, for a moment.
	gone = 3
)

// SystemResolver is the system's, such that a server that fails never passes for one that knows no such name.
var SystemResolver Resolver = &net.Resolver{StrictErrors: true}

// Resolve looks the names up, again and again. It calls loaded with each list that is another than before, and failed when a look-up fails
// that did not fail before: then what was known stays. A name that is not there counts as an empty list, since the service of a pool
// without replicas has no records: at once if there was none before, else after some such answers in a row. A target of SRV records that
// cannot be resolved is left out. Both are called from several goroutines. Resolve returns when ctx ends.
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
		if err != nil && text != reason { // said once, not at every look
			log.Error("look-up failed; the last good list stays", "reason", err)
			failed(n.Pool, err)
		}
		reason = text
		if !holds || known && slices.Equal(found, last) {
			continue
		}
		known, last = true, found
		log.Info("endpoints", "count", len(found))
		loaded(n.Pool, &Assignment{Endpoints: slices.Clone(found)})
	}
}

// memory is what was answered before about a name and the targets of its SRV records.
type memory struct {
	records known[*net.SRV]
	hosts   map[string]*known[netip.Addr]
}

// known is what holds of a name.
type known[T any] struct {
	list   []T
	is     bool // something holds
	missed int  // answers in a row that there is no such name
}

// hear takes an answer, and reports whether anything holds after it.
func (k *known[T]) hear(list []T, err error) bool {
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

// hearAddresses is hear for a host. One that had IPv4 addresses and is answered IPv6 ones has lost the others, which is believed as late as that it
// has lost all.
func hearAddresses(k *known[netip.Addr], list []netip.Addr, err error) {
	if err == nil && len(list) > 0 && len(k.list) > 0 && k.list[0].Unmap().Is4() && !list[0].Unmap().Is4() {
		if k.missed++; k.missed < gone {
			return
		}
	}
	k.hear(list, err)
}

// notFound reports whether a server said that there is no such name, or nothing of the kind under it. All else is no answer.
func notFound(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsNotFound && !dns.IsTemporary && !dns.IsTimeout
	}
	return errors.As(err, new(*net.AddrError)) // of a name in the hosts file, or an address: it is of the other family
}

// String returns the name that is looked up.
func (n Name) String() string {
	if n.SRV != "" {
		return n.SRV
	}
	return n.Host
}

// Lookup looks the name up once. The endpoints are sorted, each address once, and all usable. Targets of SRV records that cannot be
// resolved are left out; it is an error if that is all of them.
func (n Name) Lookup(ctx context.Context, r Resolver) ([]Endpoint, error) {
	a, err := n.Ask(ctx, r)
	if err != nil {
		return nil, err
	}
	return a.Endpoints, nil
}

// Ask is Lookup that says what was left out.
func (n Name) Ask(ctx context.Context, r Resolver) (*Assignment, error) {
	found, _, err := n.lookup(ctx, r, new(memory))
	if err != nil && len(found) == 0 {
		return nil, err
	}
	return &Assignment{Endpoints: found, Skipped: err}, nil
}

// lookup looks the name up once more. It returns what holds now, whether anything does, and what could not be resolved.
func (n Name) lookup(ctx context.Context, r Resolver, before *memory) (found []Endpoint, holds bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	if n.SRV == "" {
		errs := n.lookupHosts(ctx, r, []string{n.Host}, before)
		k := before.hosts[n.Host]
		return endpointsAt(k.list, n.Port, 0), k.is, errs
	}
	_, records, err := r.LookupSRV(ctx, "", "", n.SRV)
	heard := err
	if len(records) > 0 {
		heard = nil // then the error is about others, whose names are none
	}
	if !before.records.hear(records, heard) {
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

// withPort returns the records that have a port, and says which do not: nobody answers at port 0. A target of a single dot needs none.
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

// targetsOf are the hosts of records, each once. A target of a single dot says that the service is decidedly not available (RFC 2782).
func targetsOf(records []*net.SRV) (hosts []string) {
	for _, record := range records {
		if host := targetOf(record); host != "" && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

func targetOf(record *net.SRV) string { return strings.TrimSuffix(record.Target, ".") }

// atOnce is how many hosts are looked up at a time: one whose server is silent does not hold up the rest.
const atOnce = 16

// lookupHosts looks up hosts, and remembers what holds of each, and of no others. It returns what could not be resolved.
func (n Name) lookupHosts(ctx context.Context, r Resolver, hosts []string, before *memory) error {
	addresses, errs := make([][]netip.Addr, len(hosts)), make([]error, len(hosts))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, host := range hosts {
		group.Go(func() error {
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
		hearAddresses(now[host], addresses[i], errs[i])
	}
	before.hosts = now
	return errors.Join(errs...)
}

// lookupHost returns the addresses of a host, of one family. A host that has none of the first one is asked for the other.
func (n Name) lookupHost(ctx context.Context, r Resolver, host string) (addresses []netip.Addr, err error) {
	families := map[string][]string{FamilyIPv4: {"ip4"}, FamilyIPv6: {"ip6"}}[n.Family]
	if families == nil {
		families = []string{"ip4", "ip6"} // apart: an answer about one must not hide that there is none about the other
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
