package program

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"example.org/mediaproxy/cmd/mediaproxy/ctl"
	"example.org/mediaproxy/cmd/mediaproxy/version"
	"example.org/mediaproxy/internal/config"
	"example.org/mediaproxy/internal/dispatcher"
	"example.org/mediaproxy/internal/hangup"
	"example.org/mediaproxy/internal/pki"
	"example.org/mediaproxy/internal/wire/manage"
)

func dispatcherCommand() *cobra.Command {
	o := &options{name: "media-dispatcher"}
	cmd := &cobra.Command{
		Use: "dispatcher", Short: "Serve a SIP proxy and hand its calls to relays", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.takeOutput(cmd)
			return runDispatcher(o)
		},
	}
	o.addService(cmd)
	o.addAlone(cmd)
	return cmd
}

func runDispatcher(o *options) error {
	h, err := newHost(o, config.RoleDispatcher)
	if err != nil {
		return err
	}
	store, err := h.openCertificates(h.dirs.Find(h.cfg.TLS.CertsPath), pki.Dispatcher)
	if err != nil {
		return err
	}
	r, _, err := h.dispatcherRoom(store, h.cfg.Dispatcher.Listen)
	if err != nil {
		return err
	}
	return h.serve([]room{r}, func() {})
}

// dispatcherRoom puts a dispatcher together that listens for relays on the address.
func (h *host) dispatcherRoom(store *pki.Store, listen netip.AddrPort) (room, *dispatcher.Dispatcher, error) {
	c := h.cfg.Dispatcher
	relays, err := parsePassport(c.Passport)
	managers, err2 := parsePassport(c.ManagementPassport)
	if err := errors.Join(err, err2); err != nil {
		return room{}, nil, err
	}
	gid, group, err := h.socketGroup()
	if err != nil {
		return room{}, nil, err
	}
	others, err := h.joinCluster(store)
	if err != nil {
		return room{}, nil, err
	}
	books, err := h.openAccounting(others)
	if err != nil {
		return room{}, nil, errors.Join(err, others.close())
	}
	hang := h.hangup(gid, group)
	d, err := dispatcher.New(dispatcher.Config{
		Name:             h.dispatcherName(),
		Version:          version.Version,
		SocketPath:       h.socketPath(),
		SocketGID:        gid,
		SocketGroup:      group,
		RelayListen:      listen,
		RelayTLS:         store.ServerConfig(relays),
		TrackRelay:       func(conn *tls.Conn) func() { return store.Track(conn, relays) },
		ManagementListen: c.ListenManagement,
		ManagementTLS:    managementTLS(c, store, managers),
		TrackManager:     func(conn *tls.Conn) func() { return store.Track(conn, managers) },
		ManagementSocket: filepath.Join(h.runtimeDir, ctl.SocketName),
		ManagementFormat: managementFormat(c),

		RelayTimeout:                c.RelayTimeout,
		RelayRecoverInterval:        exactly(c.RelayRecoverInterval),
		CleanupDeadRelaysAfter:      exactly(c.CleanupDeadRelaysAfter),
		CleanupExpiredSessionsAfter: exactly(c.CleanupExpiredSessionsAfter),

		Selector:   selector(c),
		Finished:   books.finished,
		Accounting: books.status,
		Hangup:     hang,
		Shared:     others.shared(),
		Peers:      others.peers(),
		Cluster:    others.status(),

		LostCallsFile: filepath.Join(h.stateDir, "lost-calls.json"),
	}, h.log)
	if err == nil {
		err = others.answer(d)
	}
	if err != nil {
		return room{}, nil, errors.Join(err, hang.Close(), books.close(), others.close())
	}
	return h.roomOf(d, store, func() error { return errors.Join(hang.Close(), books.close(), others.close()) }), d, nil
}

func (h *host) hangup(gid int, group bool) *hangup.Hangup {
	return hangup.New(hangup.Config{
		Dialect: hangup.Dialect(h.cfg.Hangup.Dialect),
		Sockets: h.cfg.ProxySockets(),
		Local:   filepath.Join(h.runtimeDir, hangupSocket),
		GID:     gid,
		Group:   group,
	}, h.log)
}

// roomOf is a dispatcher as a part of the program.
func (h *host) roomOf(d *dispatcher.Dispatcher, store *pki.Store, end func() error) room {
	ctx, stop := context.WithCancel(context.Background())
	return room{
		name:  "dispatcher",
		run:   h.watched(store, func(context.Context) error { return d.Run(ctx) }),
		ready: d.Ready(),
		stop:  stop,
		hup: func() {
			h.log.Warn("HUP does nothing to the dispatcher in this version: restart it to have a changed configuration read")
		},
		alive: func() { d.Stats() },
		close: end,
	}
}

// hangupSocket is what the SIP proxy answers to; the original's name.
const hangupSocket = "opensips.sock"

// socketPath is where the SIP proxy asks.
func (h *host) socketPath() string {
	if path := h.options.up.socket; path != "" {
		return path
	}
	if path := h.cfg.Dispatcher.SocketPath; filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(h.runtimeDir, h.cfg.Dispatcher.SocketPath)
}

func managementTLS(c config.Dispatcher, store *pki.Store, passport pki.Passport) *tls.Config {
	if !c.ManagementUseTLS {
		return nil
	}
	return store.ServerConfig(passport)
}

func managementFormat(c config.Dispatcher) manage.Format {
	if c.ManagementFormat == "lines" {
		return manage.Lines
	}
	return manage.Array
}

func selector(c config.Dispatcher) dispatcher.Selector {
	switch c.RelaySelection {
	case "random":
		return dispatcher.Random{}
	case "weighted":
		return dispatcher.Weighted{Weights: c.RelayWeights}
	case "labels":
		return dispatcher.Labels{Preferred: c.RelayLabels}
	}
	return dispatcher.LeastLoaded{}
}

// exactly keeps a zero of the configuration from being taken for "not set".
func exactly(d time.Duration) time.Duration { return cmp.Or(d, 1) }
