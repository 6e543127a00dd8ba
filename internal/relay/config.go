package relay

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"example.org/mediaproxy/internal/session"
)

// Dial connects to a dispatcher and returns the connection after its TLS
// handshake and passport check, with the negotiated ALPN protocol name.
type Dial func(ctx context.Context, addr netip.AddrPort) (conn net.Conn, alpn string, err error)

// Config describes a relay. Zero values mean the defaults named below, except
// where a member says that it must be set.
type Config struct {
	Name     string       // default: host name, a slash, and the first of IPs
	Instance string       // default: random, new for each process
	Version  string       // as shown in summaries
	IPs      []netip.Addr // addresses this relay relays on, at least one
	Labels   []string

	Dispatchers []string // host, host:port, [IPv6]:port; empty: the relay idles
	Dial        Dial     // must be set
	Resolver    Resolver // default: net.DefaultResolver

	// KeepConfiguredPort is the original's rule for service records: take only
	// their hosts, and connect to the port of the entry (or the default one).
	// A port written in the entry is always kept.
	KeepConfiguredPort bool

	DNSCheckInterval  time.Duration // default 60 s
	KeepaliveInterval time.Duration // default 10 s
	ReconnectDelay    time.Duration // default 10 s
	DialTimeout       time.Duration // default 10 s

	// TrafficSampling is the period over which the relayed bits per second are
	// measured; 0 or less: never.
	TrafficSampling time.Duration

	RepeatInterval time.Duration // of unacknowledged records, default 10 s
	MaxRecords     int           // unacknowledged records kept, default 50000, about 1.5 kB each
	StopWait       time.Duration // for the next acknowledgement when stopping, default 3 s
	DrainWait      time.Duration // the same after HUP and the last call, default 60 s
	KeepWait       time.Duration // for a second Stop when calls are left to the next process, default 5 s

	// Durable: calls and unacknowledged records outlive the process.
	Durable bool
	// Pending are finished calls of a former process that nobody has acknowledged.
	Pending []session.Finished

	// MaxBacklog is how many bytes may wait for a dispatcher that does not
	// read, default 32 MiB. One document of any size is taken while less than
	// this waits, so a dump of all sessions passes; a peer that stands still
	// loses its connection, not the relay its memory.
	MaxBacklog int

	Now func() time.Time // default time.Now
}

// complete fills in defaults and returns all problems at once.
func (c Config) complete() (Config, []target, error) {
	var problems []error
	if c.Dial == nil {
		problems = append(problems, errors.New("no way to dial dispatchers is set"))
	}
	if len(c.IPs) == 0 {
		problems = append(problems, errors.New("no relay address is known; set relay_ip in section [Relay]"))
	}
	for _, ip := range c.IPs {
		if !ip.IsValid() {
			problems = append(problems, errors.New("an address of the relay is not valid"))
		}
	}
	var targets []target
	for _, text := range c.Dispatchers {
		t, err := parseTarget(text)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		targets = append(targets, t)
	}
	if len(problems) > 0 {
		return c, nil, errors.Join(problems...)
	}
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return c, nil, fmt.Errorf("find the host name for the relay's name (or set name in section [Relay]): %w", err)
		}
		c.Name = host + "/" + c.IPs[0].String()
	}
	if c.Instance == "" {
		var random [8]byte
		rand.Read(random[:]) // never fails
		c.Instance = hex.EncodeToString(random[:])
	}
	if c.Resolver == nil {
		c.Resolver = net.DefaultResolver
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.DNSCheckInterval = positive(c.DNSCheckInterval, 60*time.Second)
	c.KeepaliveInterval = positive(c.KeepaliveInterval, 10*time.Second)
	c.ReconnectDelay = positive(c.ReconnectDelay, 10*time.Second)
	c.DialTimeout = positive(c.DialTimeout, 10*time.Second)
	c.RepeatInterval = positive(c.RepeatInterval, 10*time.Second)
	c.StopWait = positive(c.StopWait, 3*time.Second)
	c.DrainWait = positive(c.DrainWait, 60*time.Second)
	c.KeepWait = positive(c.KeepWait, 5*time.Second)
	c.MaxBacklog = cmp.Or(max(c.MaxBacklog, 0), 32<<20)
	c.MaxRecords = cmp.Or(max(c.MaxRecords, 0), 50000)
	return c, targets, nil
}

func positive(d, fallback time.Duration) time.Duration {
	if d <= 0 {
		return fallback
	}
	return d
}

func orDiscard(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}
