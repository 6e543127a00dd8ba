package radius

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Client sends to the servers of its settings.
type Client struct {
	settings Settings

	mu     sync.Mutex // guards what follows
	first  int        // the server that answered last
	deadTo []time.Time
}

// NewClient makes a client of settings that were read without problems.
func NewClient(s Settings) *Client {
	return &Client{settings: s, deadTo: make([]time.Time, len(s.Servers))}
}

// Send returns nil once a server has confirmed the request. It asks the servers one after
// the other, the one that answered last first, those that were found dead a while ago last. For
// each exchange the attributes are made anew, as of its time: a request to another server or
// a later try is another request (RFC 2866 section 5.2).
//
// When ctx has a deadline, the servers share the time, so that one that is silent does not
// keep the others from being asked.
func (c *Client) Send(ctx context.Context, attributes func(now time.Time) List) error {
	var failed []string
	order := c.order(time.Now())
	for i, n := range order {
		err := c.ask(ctx, c.settings.Servers[n], attributes, share(ctx, len(order)-i))
		switch {
		case err == nil:
			c.answered(n)
			return nil
		case errors.Is(ctx.Err(), context.Canceled):
			return ctx.Err() // nothing is known of the server
		}
		c.silent(n)
		failed = append(failed, err.Error())
	}
	return errors.New(strings.Join(failed, "; "))
}

// share is the time for one of several that are still to be asked; 0: no bound. A tenth is
// kept back, for what is said in the end.
func share(ctx context.Context, among int) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(time.Until(deadline)*9/10/time.Duration(among), time.Millisecond)
}

// order is which servers to ask, by number.
func (c *Client) order(now time.Time) []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	var order []int
	for i := range c.settings.Servers {
		order = append(order, (c.first+i)%len(c.settings.Servers))
	}
	slices.SortStableFunc(order, func(a, b int) int { // the living as they stand, then who died first
		if aDead, bDead := c.deadTo[a].After(now), c.deadTo[b].After(now); aDead || bDead {
			switch {
			case !aDead:
				return -1
			case !bDead:
				return 1
			}
			return c.deadTo[a].Compare(c.deadTo[b])
		}
		return 0
	})
	return order
}

func (c *Client) answered(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first, c.deadTo[n] = n, time.Time{}
}

func (c *Client) silent(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadTo[n] = time.Now().Add(c.settings.DeadTime)
}

// maxAddresses of one name are tried.
const maxAddresses = 4

// ask has one request answered by a server, at whichever of its addresses.
func (c *Client) ask(ctx context.Context, s Server, attributes func(time.Time) List, limit time.Duration) error {
	if limit > 0 {
		limited, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		ctx = limited
	}
	addresses, err := c.resolve(ctx, s.Host)
	if err != nil {
		return fmt.Errorf("RADIUS server %s: %w", s, err)
	}
	var failed []string
	for i, a := range addresses {
		now := time.Now()
		request, err := packet(s.Secret, attributes(now))
		if err != nil {
			return fmt.Errorf("RADIUS server %s: %w", s, err)
		}
		patience := c.settings.Timeout * time.Duration(c.settings.Transmissions)
		if part := share(ctx, len(addresses)-i); part > 0 {
			patience = min(patience, part)
		}
		x := &exchange{bind: c.settings.Bind, to: netip.AddrPortFrom(a, s.Port), secret: s.Secret, request: request,
			interval: c.settings.Timeout, times: c.settings.Transmissions, until: now.Add(patience)}
		if err = x.run(ctx); err == nil {
			return nil
		}
		failed = append(failed, x.explain(s, err).Error())
		if ctx.Err() != nil {
			break
		}
	}
	return errors.New(strings.Join(failed, "; "))
}

// resolve finds the addresses of a server that can be reached from the address to send
// from, IPv4 first: that is how clients are listed at most servers.
func (c *Client) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var addresses []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); !c.settings.Bind.IsValid() || a.Is4() == c.settings.Bind.Is4() {
			addresses = append(addresses, a)
		}
	}
	if len(addresses) == 0 {
		return nil, fmt.Errorf("%s has no address of the family of bindaddr %s", host, c.settings.Bind)
	}
	slices.SortStableFunc(addresses, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	return addresses[:min(len(addresses), maxAddresses)], nil
}
