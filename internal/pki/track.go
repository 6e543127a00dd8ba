package pki

import (
	"context"
	"crypto/tls"
	"time"
)

// A trackedConn is a live connection whose peer is verified again at every pass.
type trackedConn struct {
	conn     *tls.Conn
	state    tls.ConnectionState
	passport Passport
}

// Track has the peer of a connection verified again at every pass of Watch;
// when it fails the connection is closed under its reader. Call it after the
// handshake, and call untrack when the connection ends.
func (s *Store) Track(conn *tls.Conn, passport Passport) (untrack func()) {
	c := &trackedConn{conn: conn, state: conn.ConnectionState(), passport: passport}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tracked[c] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.tracked, c)
	}
}

// Watch calls Verify at every interval until the context ends.
func (s *Store) Watch(ctx context.Context) {
	ticker := time.NewTicker(s.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.Verify()
		}
	}
}

// Verify reads the files again, takes over what changed and is sound, and
// closes every tracked connection whose peer is no longer acceptable. It says
// in the log what it found.
func (s *Store) Verify() {
	s.pass.Lock()
	defer s.pass.Unlock()
	problems := s.reload()
	s.logNotices(append(problems, s.currentNotices()...))

	s.mu.Lock()
	conns := make([]*trackedConn, 0, len(s.tracked))
	for c := range s.tracked {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		if err := s.verifyPeer(c.state, c.passport); err != nil {
			s.log.Warn("connection closed: its peer is no longer acceptable", "peer", c.conn.RemoteAddr().String(), "reason", err)
			// Not Close of the TLS layer: its farewell may wait for a peer
			// that does not read.
			c.conn.NetConn().Close()
			s.mu.Lock()
			delete(s.tracked, c)
			s.mu.Unlock()
		}
	}
}
