package program

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"example.org/mediaproxy/internal/pki"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// openCertificates opens the folder of the configuration for one of the pairs.
func (h *host) openCertificates(dir, pair string) (*pki.Store, error) {
	return pki.Open(pki.Config{
		Dir: dir, Name: pair, VerifyInterval: h.cfg.TLS.VerifyInterval, Log: h.log.With("certificates", pair),
	})
}

// watched is run with the certificates looked after, unless the configuration says
// that they are read only once.
func (h *host) watched(store *pki.Store, run func(context.Context) error) func(context.Context) error {
	if h.cfg.TLS.VerifyInterval == 0 {
		return run
	}
	return func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		var watching sync.WaitGroup
		watching.Go(func() { store.Watch(ctx) })
		defer watching.Wait()
		defer cancel()
		return run(ctx)
	}
}

// certificateFolder is where the configuration has the certificates. Without any there,
// own says that they are to be made by the program itself, in its state folder.
func (h *host) certificateFolder() (dir string, own bool) {
	dir = h.dirs.Find(h.cfg.TLS.CertsPath)
	if _, configured := h.cfg.Where("TLS", "certs_path"); configured {
		return dir, false
	}
	if _, err := os.Stat(filepath.Join(dir, pki.CAFile)); err == nil {
		return dir, false
	}
	return filepath.Join(h.stateDir, "tls"), true
}

// ownCertificates fills the folder the first time, and renews what is about to
// expire: nobody else looks after it.
func (h *host) ownCertificates(dir string) error {
	_, err := os.Stat(filepath.Join(dir, pki.CAFile))
	if err == nil {
		made, err := pki.RenewDue(dir, pki.Options{})
		if err != nil {
			return fmt.Errorf("renew certificates that are about to expire: %w", err)
		}
		if len(made) > 0 {
			h.log.Info("renewed certificates that were about to expire", "folder", dir)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for certificates: %w", err)
	}
	if err := makeFolder(h.stateDir, 0o700, "state_dir names another"); err != nil {
		return err
	}
	if _, err := pki.Create(dir, pki.Options{}); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	h.log.Info("made an authority and certificates of its own", "folder", dir)
	return nil
}

// dialer connects a relay to dispatchers.
type dialer struct {
	store    *pki.Store
	passport pki.Passport
}

// dial returns after the handshake, in which the certificates were checked both ways.
func (d dialer) dial(ctx context.Context, addr netip.AddrPort) (net.Conn, string, error) {
	client := tls.Dialer{
		NetDialer: &net.Dialer{KeepAlive: 30 * time.Second}, // a dispatcher that lost its power is noticed
		Config:    d.store.ClientConfig(d.passport, relaylink.ALPN),
	}
	conn, err := client.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, "", err
	}
	secure := conn.(*tls.Conn)
	tracked := &trackedConn{Conn: secure, untrack: sync.OnceFunc(d.store.Track(secure, d.passport))}
	return tracked, secure.ConnectionState().NegotiatedProtocol, nil
}

// trackedConn is verified again from time to time until it is closed.
type trackedConn struct {
	net.Conn
	untrack func()
}

func (c *trackedConn) Close() error {
	c.untrack()
	return c.Conn.Close()
}
