package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Resolver is what the relay asks about dispatchers given by name.
// *net.Resolver is one.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// lookupTimeout bounds one look-up of one entry. Links do not wait for it, so
// it may be as generous as a slow resolver with retries needs.
const lookupTimeout = 15 * time.Second

// maxCandidates bounds what one DNS answer can make the relay remember.
const maxCandidates = 32

// errGone says that the name servers answered, and that the name has neither
// a usable service record nor an address.
var errGone = errors.New("no such name")

// lookup finds the places of one entry, best first. It returns errGone if the
// name does not exist, and another error if that could not be found out.
func lookup(ctx context.Context, r Resolver, t target, keepPort bool) ([]netip.AddrPort, error) {
	if t.addr.IsValid() {
		return []netip.AddrPort{netip.AddrPortFrom(t.addr, t.port)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()

	_, records, srvErr := r.LookupSRV(ctx, "sip", "udp", t.name)
	if srvErr != nil && !notFound(srvErr) {
		// The service may well exist: falling back to the address of the bare
		// name now would move the link to another machine for a moment.
		return nil, fmt.Errorf("look up _sip._udp.%s: %w", t.name, srvErr)
	}
	places, err := lookupService(ctx, r, t, records, keepPort)
	if len(places) > 0 || err != nil {
		return places, err
	}
	return lookupHost(ctx, r, t.name, t.port)
}

// lookupService resolves the hosts of the service records in their order. It
// returns nothing, without an error, when the records lead nowhere.
func lookupService(ctx context.Context, r Resolver, t target, records []*net.SRV, keepPort bool) ([]netip.AddrPort, error) {
	var places []netip.AddrPort
	var problem error
	for _, s := range orderSRV(records, rand.IntN) {
		port := s.Port
		if keepPort || t.explicit || port == 0 {
			port = t.port
		}
		found, err := lookupHost(ctx, r, strings.TrimSuffix(s.Target, "."), port)
		if err != nil && !errors.Is(err, errGone) {
			problem = err
		}
		for _, a := range found {
			if len(places) < maxCandidates && !slices.Contains(places, a) {
				places = append(places, a)
			}
		}
	}
	if len(places) > 0 {
		return places, nil
	}
	return nil, problem
}

// lookupHost returns the addresses of a host, IPv4 first and sorted, so that
// the order does not change with the name server's rotation.
func lookupHost(ctx context.Context, r Resolver, host string, port uint16) ([]netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(addr.Unmap(), port)}, nil
	}
	addrs, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil && !notFound(err) {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("look up %s: %w", host, errGone)
	}
	places := make([]netip.AddrPort, 0, len(addrs))
	for _, a := range addrs {
		places = append(places, netip.AddrPortFrom(a.Unmap(), port))
	}
	slices.SortFunc(places, netip.AddrPort.Compare)
	places = slices.Compact(places)
	return places[:min(len(places), maxCandidates)], nil
}

// orderSRV sorts service records as RFC 2782 asks: by priority, and among
// equals at random in proportion to weight. Records whose target is the root
// say "not here" and are left out.
func orderSRV(records []*net.SRV, intn func(int) int) []*net.SRV {
	var left []*net.SRV
	for _, s := range records {
		if s != nil && s.Target != "." && s.Target != "" {
			left = append(left, s)
		}
	}
	// Weight 0 first: they are then taken only when the draw is 0.
	slices.SortStableFunc(left, func(a, b *net.SRV) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Weight, b.Weight))
	})
	ordered := make([]*net.SRV, 0, len(left))
	for len(left) > 0 {
		equals, total := 0, 0
		for equals < len(left) && left[equals].Priority == left[0].Priority {
			total += int(left[equals].Weight)
			equals++
		}
		draw, sum := intn(total+1), 0
		for i := range equals {
			sum += int(left[i].Weight)
			if sum >= draw {
				ordered = append(ordered, left[i])
				left = slices.Delete(left, i, i+1)
				break
			}
		}
	}
	return ordered
}

// notFound tells an authoritative "no" from a resolver that failed.
func notFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound && !dns.IsTimeout
}
