package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// ClusterPort is where dispatchers listen for each other unless told otherwise.
const ClusterPort = 25062

// Cluster is the [Cluster] section.
type Cluster struct {
	Name        string         // empty: host name
	Listen      netip.AddrPort // zero: not set
	Peers       []string       // as written
	Passport    string         // empty: no check
	URLs        []string
	Credentials string // file; empty: none
	CA          string // file; empty: the host's authorities
	Replicas    int
}

// Joined says whether dispatchers are to know each other at all.
func (c *Cluster) Joined() bool { return len(c.Peers) > 0 || len(c.URLs) > 0 }

// PeerAddresses are the other dispatchers as host:port. The one of listen may be among the
// peers, so that all can have the same list; it is left out.
func (c *Cluster) PeerAddresses() []string {
	var list []string
	for _, peer := range c.Peers {
		host, port, found := cutPort(peer)
		if ip, err := netip.ParseAddr(strings.Trim(peer, "[]")); err == nil {
			host, found = ip.String(), false
		}
		if !found {
			port = strconv.Itoa(ClusterPort)
		}
		address := net.JoinHostPort(strings.Trim(host, "[]"), port)
		if address != c.Listen.String() && !slices.Contains(list, address) {
			list = append(list, address)
		}
	}
	return list
}

// optional is a kind whose zero value is: not set.
func optional(k kind[netip.AddrPort]) kind[netip.AddrPort] {
	print := k.print
	k.print = func(a netip.AddrPort) string {
		if !a.IsValid() {
			return ""
		}
		return print(a)
	}
	return k
}

// natsURLs are servers of a cluster that runs elsewhere.
var natsURLs = kind[[]string]{
	word: "list of nats:// or tls:// URLs",
	parse: func(s string) ([]string, error) {
		list := splitList(s)
		for _, item := range list { // which one is wrong is not said: it may have a password
			if u, err := url.Parse(item); err != nil || u.Scheme != "nats" && u.Scheme != "tls" || u.Hostname() == "" || u.User != nil {
				return nil, errors.New("want nats://HOST:PORT or tls://HOST:PORT; users and passwords are for credentials")
			}
		}
		return list, nil
	},
	print: words.print,
}

// replicas is how many servers keep what must not be lost.
var replicas = kind[int]{
	word: "1 | 3",
	parse: func(s string) (int, error) {
		if s != "1" && s != "3" {
			return 0, errors.New("want 1 or 3")
		}
		return int(s[0] - '0'), nil
	},
	print: strconv.Itoa,
}

var clusterKeys = []key{
	setting("name", "", name, func(c *Config) *string { return &c.Cluster.Name },
		"Name of this dispatcher, unlike that of all others. Relays know by it whose calls they carry.").new().orElse("host name"),
	setting("listen", "", optional(endpoint(netip.AddrPortFrom(anyIP, ClusterPort))), func(c *Config) *netip.AddrPort { return &c.Cluster.Listen },
		"Address and port for the other dispatchers. Without a port it is 25062.").new(),
	setting("peers", "", hosts, func(c *Config) *[]string { return &c.Cluster.Peers },
		"The other dispatchers, with 25062 as port unless given. The address in listen may be among them. They and this one become one cluster, over TLS with the certificates of [TLS]; more than half of them have to reach each other, so there should be three, or none.").new(),
	setting("passport", "None", passport, func(c *Config) *string { return &c.Cluster.Passport },
		"What the certificate of another dispatcher must say, as in \"O:Example, CN:dispatcher*\". None lets every certificate of the authority in, those of relays too.").new(),
	setting("urls", "", natsURLs, func(c *Config) *[]string { return &c.Cluster.URLs },
		"Servers of a NATS cluster with JetStream that runs elsewhere, in the place of listen and peers.").new().quiet(),
	setting("credentials", "", folder, func(c *Config) *string { return &c.Cluster.Credentials },
		"Credentials file for the servers in urls.").new(),
	setting("ca", "", folder, func(c *Config) *string { return &c.Cluster.CA },
		"File with the authority that issued the certificates of the servers in urls.").new().orElse("the authorities of the host"),
	setting("replicas", "1", replicas, func(c *Config) *int { return &c.Cluster.Replicas },
		"How many servers keep a finished call until it is stored. 1: this dispatcher alone, on its own disk, waiting for nobody. 3: three servers, so that another dispatcher stores what a lost one had taken; a relay then keeps its report while they elect a leader, for some seconds.").new(),
}

// checkCluster finds settings that do not go together. As with any other problem, what is
// refused keeps its default.
func (l *loader) checkCluster() {
	c := &l.c.Cluster
	say := func(severity Severity, key, text string) {
		o, _ := l.c.Where("Cluster", key)
		l.problem(severity, o.File, o.Line, "Cluster", key, text)
	}
	if len(c.URLs) > 0 {
		const both = "goes with dispatchers that are the cluster themselves, urls with one that runs elsewhere: want one of them"
		if c.Listen.IsValid() {
			say(Error, "listen", both)
		}
		if len(c.Peers) > 0 {
			say(Error, "peers", both)
		}
		c.Listen, c.Peers = netip.AddrPort{}, nil
		return
	}
	const elsewhere = "is for the servers in urls, which is not set: dispatchers in peers use the certificates of [TLS]"
	if c.Credentials != "" {
		say(Error, "credentials", elsewhere)
	}
	if c.CA != "" {
		say(Error, "ca", elsewhere)
	}
	c.Credentials, c.CA = "", ""
	l.checkPeers(say)
	if n := len(c.PeerAddresses()) + 1; c.Replicas == 3 && n < 3 {
		say(Error, "replicas", fmt.Sprintf("3 replicas need three servers, there are %d: want two others in peers, or urls, or replicas = 1", n))
		c.Replicas = 1
	}
}

func (l *loader) checkPeers(say func(Severity, string, string)) {
	c, relays := &l.c.Cluster, l.c.Dispatcher.Listen
	others := len(c.PeerAddresses())
	fine := false
	switch {
	case len(c.Peers) > 0 && !c.Listen.IsValid():
		say(Error, "peers", "the other dispatchers must be able to connect to this one too: want listen as well")
	case c.Listen.IsValid() && others == 0:
		say(Error, "listen", "there is nobody to listen for: want the other dispatchers in peers")
	case c.Listen.IsValid() && c.Listen.Port() == relays.Port() &&
		(c.Listen.Addr() == relays.Addr() || c.Listen.Addr().IsUnspecified() || relays.Addr().IsUnspecified()):
		say(Error, "listen", fmt.Sprintf("port %d is that of listen in [Dispatcher], for relays: want another one", relays.Port()))
	default:
		fine = true
	}
	if others == 1 {
		say(Warning, "peers", "two dispatchers have no majority when one of them is lost, so neither can then decide anything: want a third, which may be small, or no cluster (calls and accounting go on either way)")
	}
	if !fine {
		c.Listen, c.Peers = netip.AddrPort{}, nil
	}
}
