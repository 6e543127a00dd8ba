package program

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"example.org/mediaproxy/cmd/mediaproxy/service"
	"example.org/mediaproxy/cmd/mediaproxy/version"
	"example.org/mediaproxy/internal/config"
	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/media"
	"example.org/mediaproxy/internal/pki"
	"example.org/mediaproxy/internal/relay"
	"example.org/mediaproxy/internal/session"
)

// spareDescriptors are for everything that is not a media port.
const spareDescriptors = 1000

func relayCommand() *cobra.Command {
	o := &options{name: "media-relay"}
	cmd := &cobra.Command{
		Use: "relay", Short: "Relay media for dispatchers", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.takeOutput(cmd)
			return runRelay(o)
		},
	}
	o.addService(cmd)
	return cmd
}

func runRelay(o *options) error {
	h, err := newHost(o, config.RoleRelay)
	if err != nil {
		return err
	}
	store, err := h.openCertificates(h.dirs.Find(h.cfg.TLS.CertsPath), pki.Relay)
	if err != nil {
		return err
	}
	ips := h.cfg.Relay.RelayIP
	if len(ips) == 0 {
		if ips = ownAddresses(); len(ips) == 0 {
			return errors.New("this host has no route to the internet, so its address is not known; set relay_ip in section [Relay]")
		}
	}
	r, err := h.relayRoom(store, ips, h.cfg.Relay.Dispatchers)
	if err != nil {
		return err
	}
	return h.serve([]room{r}, func() {})
}

// relayRoom puts a relay together: the table that moves packets, streams on top of it,
// calls on top of those, and the links to dispatchers that command the calls.
func (h *host) relayRoom(store *pki.Store, ips []netip.Addr, dispatchers []string) (room, error) {
	c := h.cfg.Relay
	passport, err := parsePassport(c.Passport)
	if err != nil {
		return room{}, err
	}
	name, err := relayName(c, ips)
	if err != nil {
		return room{}, err
	}
	kept, err := h.openJournal()
	if err != nil {
		return room{}, err
	}
	raiseDescriptorLimit(c.PortRange.Size() * len(ips))
	table, err := forward.Open(h.tableConfig(c, ips), h.log)
	if err != nil {
		return room{}, errors.Join(err, kept.close())
	}
	h.keepSockets(table)
	engine := media.NewEngine(mediaConfig(c, ips), table, h.log)
	engine.Prepare()
	calls := session.New(kept.config(name), engine, h.log)
	pending := kept.restore(calls, h.log)
	r, err := relay.New(relay.Config{
		Name:               name,
		Version:            version.Version,
		IPs:                ips,
		Labels:             c.Labels,
		Dispatchers:        dispatchers,
		Dial:               dialer{store, passport}.dial,
		KeepConfiguredPort: !c.UseSRVPort,
		DNSCheckInterval:   c.DNSCheckInterval,
		KeepaliveInterval:  c.KeepaliveInterval,
		ReconnectDelay:     c.ReconnectDelay,
		TrafficSampling:    c.TrafficSamplingPeriod,
		Durable:            kept.Log != nil,
		Pending:            pending,
	}, calls, engine, h.log)
	// Calls are the next process's, and so is what moves their packets.
	leave := func() error {
		err := kept.close()
		if calls.Len() > 0 {
			return err
		}
		return errors.Join(err, table.Close())
	}
	if err != nil {
		return room{}, errors.Join(err, leave())
	}
	h.log.Info("relay starts", "name", name, "addresses", ips, "packets_moved_in", engine.Mover(), "fast_path", c.FastPath)
	running := h.underSignals(r, c.OnStop == "keep" && kept.Log != nil)
	running.run = h.watched(store, func(context.Context) error { return r.Run(context.Background()) })
	running.alive, running.close = func() { calls.Len() }, leave
	return running, nil
}

// underSignals says what signals do to a relay; keep: its calls are the next process's.
func (h *host) underSignals(r *relay.Relay, keep bool) room {
	return room{
		name:  "relay",
		stop:  func() { r.Stop(!keep) },
		hurry: func() { r.Stop(true) }, // ends the calls, or waits for nothing any more
		hup: func() {
			r.Drain(true)
			if err := service.Status("draining: no new calls, ends with the last one"); err != nil {
				h.log.Warn("systemd does not know that this program drains", "error", err)
			}
		},
	}
}

// tableConfig says where the flow table may live.
func (h *host) tableConfig(c config.Relay, ips []netip.Addr) forward.Config {
	t := forward.Config{Locals: ips, Inherited: service.Inherited(), FastPath: forward.FastPath(c.FastPath), Lease: c.OrphanLease, Memory: filepath.Join(h.runtimeDir, "relay.ports")}
	if c.AutoDetectInterfaces {
		t.Locals = append(slices.Clone(ips), otherAddresses(ips)...)
	}
	if c.BPFDir != "" {
		t.Pins = filepath.Join(c.BPFDir, pinName(h.stateDir))
	}
	return t
}

// keepSockets leaves with systemd what the next process should inherit.
func (h *host) keepSockets(table forward.Table) {
	keeper, ok := table.(forward.Keeper)
	if !ok {
		return
	}
	for name, fd := range keeper.Sockets() {
		if err := service.Keep(name, fd); err != nil {
			h.log.Warn("datagrams that arrive during a restart will be lost", "error", err)
			return
		}
	}
}

// pinName is this relay's name among the pins: its state folder belongs to no other.
func pinName(stateDir string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.Trim(stateDir, "/"))
}

// mediaConfig translates what the file says about media.
func mediaConfig(c config.Relay, ips []netip.Addr) media.Config {
	m := media.Config{
		Locals:         ips,
		Advertised:     c.AdvertisedIP,
		FirstPort:      uint16(c.PortRange.Start),
		EndPort:        uint16(c.PortRange.End), // 65536 becomes 0, which means just that
		PortRest:       exactly(c.PortRestTime),
		TrustedRanges:  c.TrustedMediaRanges,
		RoutableRanges: c.RoutablePrivateRanges,
		StreamTimeout:  c.StreamTimeout,
		IdleTimeout:    c.IdleTimeout,
		HoldTimeout:    c.OnHoldTimeout,
		OneWayTimeout:  c.OneWayTimeout,
	}
	switch c.AddressLearning {
	case "strict":
		m.Learning = media.Strict
	case "first-packet":
		m.Learning = media.FirstPacket
	}
	if c.AutoDetectInterfaces && len(c.AdvertisedIP) == 0 {
		m.Detect = media.FacingAddress
	}
	return m
}

// relayName is how dispatchers know the relay.
func relayName(c config.Relay, ips []netip.Addr) (string, error) {
	if c.Name != "" {
		return c.Name, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find the host name for the relay's name (or set name in section [Relay]): %w", err)
	}
	return host + "/" + ips[0].String(), nil
}
