// Package config reads config.ini: the sections, names and quirks of MediaProxy's file
// plus settings of our own.
//
// One table (table.go) describes every setting; what is parsed, what is refused, the
// sample file and the documentation all come from it. A load never stops at the first
// mistake: it returns the effective values and all problems, each with its file, line
// and what would be right.
//
// The package knows nothing of what the values are used for. Passports and names of
// relays stay text; who understands them reports mistakes through Where.
package config

//go:generate go run ./gen ../..

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Level is the type of log levels.
type Level = slog.Level

// Config is an effective configuration.
type Config struct {
	Dispatcher Dispatcher
	Relay      Relay
	TLS        TLS
	OpenSIPS   OpenSIPS
	Hangup     Hangup
	Radius     Radius
	Database   Database
	Webhook    Webhook
	Cluster    Cluster

	origins map[settingName]Origin
}

// Program is what both programs have in their sections.
type Program struct {
	LogLevel     slog.Level
	LogFormat    string // "text" or "json"
	StateDir     string // empty: DefaultStateDir
	StrictConfig bool
}

// Dispatcher is the [Dispatcher] section.
type Dispatcher struct {
	Program

	SocketPath         string // may be relative to the runtime folder
	SocketGroup        string // empty: the first of opensips and kamailio
	Listen             netip.AddrPort
	ListenManagement   netip.AddrPort
	ManagementUseTLS   bool
	ManagementPassport string // empty: no check
	ManagementFormat   string // "array" or "lines"
	Passport           string // empty: no check

	RelayTimeout                time.Duration
	RelayRecoverInterval        time.Duration
	RelaySelection              string // "least-loaded", "random", "weighted" or "labels"
	RelayWeights                map[string]int
	RelayLabels                 []string
	CleanupDeadRelaysAfter      time.Duration
	CleanupExpiredSessionsAfter time.Duration
	Accounting                  []string
}

// Relay is the [Relay] section.
type Relay struct {
	Program

	Dispatchers []string // host, host:port, address or [IPv6]:port, as written
	Name        string   // empty: host name and address
	Labels      []string
	Passport    string // empty: no check

	RelayIP              []netip.Addr // at most one of each family; empty: find it
	AdvertisedIP         []netip.Addr // at most one of each family; empty: as RelayIP
	AutoDetectInterfaces bool
	PortRange            PortRange
	PortRestTime         time.Duration

	StreamTimeout time.Duration
	IdleTimeout   time.Duration
	OneWayTimeout time.Duration // 0: never
	OnHoldTimeout time.Duration

	AddressLearning       string // "guarded", "strict" or "first-packet"
	TrustedMediaRanges    []netip.Prefix
	RoutablePrivateRanges []netip.Prefix
	FastPath              string // "auto", "tc", "clsact", "sk_lookup" or "off"
	BPFDir                string // empty: nothing of the kernel table outlives the process
	OnStop                string // "keep" or "end"
	OrphanLease           time.Duration

	DNSCheckInterval      time.Duration
	UseSRVPort            bool
	KeepaliveInterval     time.Duration
	ReconnectDelay        time.Duration
	TrafficSamplingPeriod time.Duration // 0: not measured
}

// TLS is the [TLS] section.
type TLS struct {
	CertsPath      string // may be relative to the configuration folders
	VerifyInterval time.Duration
}

// OpenSIPS is the [OpenSIPS] section.
type OpenSIPS struct{ SocketPath string }

// Hangup is the [Hangup] section.
type Hangup struct {
	Dialect    string // "auto", "opensips" or "kamailio"
	SocketPath string // empty: see ProxySockets
}

// kamailioSocket is what the datagram socket of Debian's Kamailio is called.
const kamailioSocket = "/run/kamailio/kamailio_rpc.sock"

// ProxySockets are the management sockets that the SIP proxy may have.
func (c *Config) ProxySockets() []string {
	if c.Hangup.SocketPath != "" {
		return []string{c.Hangup.SocketPath}
	}
	return []string{c.OpenSIPS.SocketPath, kamailioSocket}
}

// Radius is the [Radius] section.
type Radius struct{ ConfigFile, AdditionalDictionary string }

// Database is the [Database] section.
type Database struct {
	URI                                                                 string
	SessionsTable, CallIDColumn, FromTagColumn, ToTagColumn, InfoColumn string
}

// laterBackends are those of the original that are not part of this version.
var laterBackends = []string{"database"}

// Backends are where finished calls are to be stored, without those that are not part of
// this version.
func (d *Dispatcher) Backends() []string {
	return slices.DeleteFunc(slices.Clone(d.Accounting), func(name string) bool { return slices.Contains(laterBackends, name) })
}

// missingBackends says why some of accounting has no effect.
func missingBackends(c *Config) string {
	var missing []string
	for _, name := range c.Dispatcher.Accounting {
		if slices.Contains(laterBackends, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return "accounting by " + strings.Join(missing, " and ") + " is not part of this version"
}

// Webhook is the [Webhook] section.
type Webhook struct{ URL, Token string }

type settingName struct{ section, key string }

// Origin is the place in a file that a value comes from.
type Origin struct {
	File string
	Line int
}

// Where returns where a setting was set; false when it has its default.
func (c *Config) Where(section, key string) (Origin, bool) {
	o, ok := c.origins[settingName{section, key}]
	return o, ok
}

// Invalid words a mistake in a value that only its user could find, with its place.
func (c *Config) Invalid(section, key string, err error) Problem {
	o := c.origins[settingName{section, key}]
	return Problem{Severity: Error, File: o.File, Line: o.Line, Section: section, Key: key, Text: err.Error()}
}

// Default returns the configuration of no file at all.
func Default() *Config {
	c := &Config{origins: map[settingName]Origin{}}
	for _, s := range sections {
		for _, k := range s.keys {
			if k.def == "" {
				continue
			}
			if err := k.set(c, k.def); err != nil {
				panic("config: default of [" + s.name + "] " + k.name + ": " + err.Error()) // the table is wrong
			}
		}
	}
	return c
}
