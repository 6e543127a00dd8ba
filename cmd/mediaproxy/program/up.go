package program

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"example.org/mediaproxy/internal/config"
	"example.org/mediaproxy/internal/pki"
)

// upOptions are conveniences of `up`, for what one changes first.
type upOptions struct {
	relayIP   string
	portRange string
	socket    string
}

func upCommand() *cobra.Command {
	o := &options{name: "mediaproxy"}
	cmd := &cobra.Command{
		Use: "up", Short: "Run a dispatcher and a relay in one process", Args: cobra.NoArgs,
		Long: `Runs a dispatcher and a relay in one process, for one SIP proxy on this host. It
needs no configuration file and no certificates: it makes its own in the state folder,
where it keeps finished calls too, in the SQLite database calls.db.
At the start it prints what to put into the configuration of Kamailio or OpenSIPS.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.takeOutput(cmd)
			return runUp(o)
		},
	}
	o.addService(cmd)
	flags := cmd.Flags()
	flags.StringVar(&o.up.relayIP, "relay-ip", "", "`ADDRESS` to relay media on, or one IPv4 and one IPv6 address")
	flags.StringVar(&o.up.portRange, "port-range", "", "media ports, `START:END`, both even")
	flags.StringVar(&o.up.socket, "socket", "", "`PATH` of the socket for the SIP proxy")
	return cmd
}

func runUp(o *options) error {
	h, err := newHost(o, config.RoleBoth)
	if err != nil {
		return err
	}
	if err := h.applyUp(); err != nil {
		return err
	}
	h.keepCalls()
	folder, own := h.certificateFolder()
	if own {
		if err := h.ownCertificates(folder); err != nil {
			return err
		}
	}
	dispatcherStore, err := h.openCertificates(folder, pki.Dispatcher)
	if err != nil {
		return err
	}
	relayStore, err := h.openCertificates(folder, pki.Relay)
	if err != nil {
		return err
	}
	listen := h.upListen()
	d, running, err := h.dispatcherRoom(dispatcherStore, listen)
	if err != nil {
		return err
	}
	d.hup = func() {} // HUP drains the relay, and then both end
	ips := h.upAddresses()
	dispatchers := append([]string{connectTo(listen)}, h.cfg.Relay.Dispatchers...)
	r, err := h.relayRoom(relayStore, ips, dispatchers)
	if err != nil {
		return err
	}
	return h.serve([]room{d, r}, func() {
		h.banner(facts{
			socket: running.SocketPath(), relayIPs: ips, ports: h.cfg.Relay.PortRange, listen: running.RelayAddr(),
			management: running.ManagementAddr(), managementTLS: h.cfg.Dispatcher.ManagementUseTLS, certificates: folder,
		})
	})
}

// applyUp puts the flags in the place of what the file says.
func (h *host) applyUp() error {
	if s := h.options.up.relayIP; s != "" {
		ips, err := config.ParseAddresses(s)
		if err != nil {
			return usage("--relay-ip %q: %w", s, err)
		}
		h.cfg.Relay.RelayIP = ips
	}
	if s := h.options.up.portRange; s != "" {
		ports, err := config.ParsePortRange(s)
		if err != nil {
			return usage("--port-range %q: %w", s, err)
		}
		h.cfg.Relay.PortRange = ports
	}
	return nil
}

// keepCalls has finished calls stored in the state folder, unless the configuration says
// where.
func (h *host) keepCalls() {
	if _, configured := h.cfg.Where("Dispatcher", "accounting"); configured {
		return
	}
	h.cfg.Dispatcher.Accounting = []string{"database"}
	if h.cfg.Database.URI == "" {
		h.cfg.Database.URI = (&url.URL{Scheme: "sqlite", Path: filepath.Join(h.stateDir, callsFile)}).String()
	}
}

// callsFile is the database of `up`.
const callsFile = "calls.db"

// upListen is where the relays connect to: the only one is in this process, unless the
// configuration asks for more.
func (h *host) upListen() netip.AddrPort {
	listen := h.cfg.Dispatcher.Listen
	if _, configured := h.cfg.Where("Dispatcher", "listen"); configured {
		return listen
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), listen.Port())
}

// connectTo is how the relay of the same host reaches a listener.
func connectTo(listen netip.AddrPort) string {
	ip := listen.Addr()
	switch {
	case ip == netip.IPv4Unspecified():
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case ip == netip.IPv6Unspecified():
		ip = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(ip, listen.Port()).String()
}

// upAddresses are the relay's addresses. A host without network still gets a relay,
// for phones on the same host.
func (h *host) upAddresses() []netip.Addr {
	if ips := h.cfg.Relay.RelayIP; len(ips) > 0 {
		return ips
	}
	if ips := ownAddresses(); len(ips) > 0 {
		return ips
	}
	h.log.Warn("this host has no route to the internet: only programs on this host can use the relay; --relay-ip names an address")
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
}

// usageError is a mistake in the command line that is found late.
type usageError struct{ error }

func (usageError) ExitCode() int   { return exitUsage }
func (e usageError) Unwrap() error { return e.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + one + "s"
}
