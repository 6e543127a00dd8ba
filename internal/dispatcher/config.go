package dispatcher

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"example.org/mediaproxy/internal/hangup"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/manage"
)

// Defaults of Config.
const (
	// DefaultSetupTimeout leaves a fifth of the module's patience (500 ms, then
	// it asks nothing for 10 s) to the reply's way back.
	DefaultSetupTimeout = 400 * time.Millisecond
	// DefaultLocateTimeout bounds the search for a call that another dispatcher
	// may have made.
	DefaultLocateTimeout = 50 * time.Millisecond

	DefaultRelayTimeout         = 5 * time.Second
	DefaultRelayRecoverInterval = 60 * time.Second
	DefaultCleanupDeadRelays    = 12 * time.Hour
	DefaultCleanupExpired       = 24 * time.Hour
)

// Config is what a dispatcher needs. Zero values mean the default, where there
// is one.
type Config struct {
	Name    string // told to relays, which list our calls under it; default host name
	Version string // answer to version, and told to relays

	SocketPath  string // the module's socket; required
	SocketGID   int    // group of the UNIX sockets, if SocketGroup
	SocketGroup bool   // false: leave the group as it is

	RelayListen netip.AddrPort // required; port 0 takes any
	RelayTLS    *tls.Config    // required; demands and verifies certificates. Its NextProtos gets link/2
	// TrackRelay hears of every relay connection after its handshake, so that a
	// peer that is no longer acceptable can be cut off later. May be nil.
	TrackRelay func(*tls.Conn) (untrack func())
	// AllowName may refuse a relay the name it announces. May be nil.
	AllowName func(name string, cert *x509.Certificate) error

	ManagementListen netip.AddrPort // zero: no TCP listener
	ManagementTLS    *tls.Config    // nil: plain TCP
	TrackManager     func(*tls.Conn) (untrack func())
	ManagementSocket string // path of the UNIX socket for operators; empty: none
	ManagementFormat manage.Format

	SetupTimeout                time.Duration // for a module's command, over all relays tried
	LocateTimeout               time.Duration
	RelayTimeout                time.Duration // for a relay's answer; also of management queries
	RelayRecoverInterval        time.Duration // for a ping of a relay that timed out
	CleanupDeadRelaysAfter      time.Duration
	CleanupExpiredSessionsAfter time.Duration

	Selector Selector // default LeastLoaded

	// Finished hears of every finished call, once for each record id. A call is
	// acknowledged to its relay after it returned nil; an error makes the relay
	// repeat it. It may block, it holds up no set-up, and is called by several at once. May be nil.
	Finished func(report.Session) error
	// Accounting tells how those do that store finished calls. May be nil.
	Accounting func() ([]report.Backend, error)
	// LostCallsFile keeps over a restart what is known of calls whose relay is away
	// meanwhile: all others are learned from their relays. Empty: nothing is kept.
	LostCallsFile string
	// Shared is what the dispatchers of a cluster tell each other about their calls. May be
	// nil.
	Shared Map
	// Peers are the other dispatchers of a cluster, which ask this one by AnswerPeer. May be
	// nil.
	Peers Peers
	// Cluster tells how the cluster does. May be nil.
	Cluster func() report.Cluster
	// Hangup ends the dialogs of calls whose media is over. May be nil.
	Hangup *hangup.Hangup

	Now func() time.Time // default time.Now
}

// Map is shared by dispatchers: under a Call-ID it has the name of the relay that carries the
// call. Put and Delete return at once; Get waits until its context ends at most. What it says
// may be late or wrong.
type Map interface {
	Get(ctx context.Context, key string) ([]byte, error)
	Put(key string, value []byte)
	Delete(key string)
}

// Peers are asked for the answer to a request about a call that no relay of ours has.
type Peers interface {
	// Ask returns the first answer of one that knows the call, when there is one before the
	// context ends or all have said no. heard: somebody said anything.
	Ask(ctx context.Context, request []byte) (answer []byte, heard bool)
}

func (c *Config) setDefaults() {
	if c.Name == "" {
		c.Name, _ = os.Hostname()
	}
	if c.Name == "" {
		c.Name = "dispatcher"
	}
	if c.Selector == nil {
		c.Selector = LeastLoaded{}
	}
	if c.Finished == nil {
		c.Finished = func(report.Session) error { return nil }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	for _, d := range []struct {
		value *time.Duration
		to    time.Duration
	}{
		{&c.SetupTimeout, DefaultSetupTimeout},
		{&c.LocateTimeout, DefaultLocateTimeout},
		{&c.RelayTimeout, DefaultRelayTimeout},
		{&c.RelayRecoverInterval, DefaultRelayRecoverInterval},
		{&c.CleanupDeadRelaysAfter, DefaultCleanupDeadRelays},
		{&c.CleanupExpiredSessionsAfter, DefaultCleanupExpired},
	} {
		if *d.value == 0 {
			*d.value = d.to
		}
	}
}

// validate returns all problems at once.
func (c *Config) validate() error {
	var problems []error
	if c.SocketPath == "" {
		problems = append(problems, errors.New("no path for the module's socket"))
	}
	if !c.RelayListen.IsValid() {
		problems = append(problems, errors.New("no address to listen on for relays"))
	}
	if c.RelayTLS == nil {
		problems = append(problems, errors.New("no TLS for relays: make certificates with mediaproxy certs"))
	}
	for name, d := range map[string]time.Duration{
		"set-up timeout": c.SetupTimeout, "relay timeout": c.RelayTimeout, "relay recover interval": c.RelayRecoverInterval,
		"locate timeout": c.LocateTimeout, "cleanup of dead relays": c.CleanupDeadRelaysAfter,
		"cleanup of expired sessions": c.CleanupExpiredSessionsAfter,
	} {
		if d < 0 {
			problems = append(problems, fmt.Errorf("%s is negative: %v", name, d))
		}
	}
	return errors.Join(problems...)
}
