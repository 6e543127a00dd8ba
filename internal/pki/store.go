package pki

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultVerifyInterval is the time between two looks at the files and the
// live connections.
const DefaultVerifyInterval = 5 * time.Minute

// Config says what to open. Dir and Name are needed; the rest has defaults.
type Config struct {
	Dir            string // the certificate folder
	Name           string // which pair is ours: Dispatcher, Relay, or another
	VerifyInterval time.Duration
	Now            func() time.Time
	Log            *slog.Logger
}

// A Store is an open certificate folder. All methods may be called at any time
// from any goroutine.
type Store struct {
	// set in Open, read-only afterwards
	dir, name string
	interval  time.Duration
	now       func() time.Time
	log       *slog.Logger

	trust    atomic.Pointer[trust]
	identity atomic.Pointer[identity]

	// pass is held during one Verify. Order: pass before mu.
	pass    sync.Mutex
	notices map[string]time.Time // guarded by pass: when each was logged last

	mu      sync.Mutex // guards what follows
	tracked map[*trackedConn]struct{}
}

// Open reads the folder. It refuses files with which no connection could
// succeed; what is merely about to expire is logged.
func Open(cfg Config) (*Store, error) {
	s := &Store{
		dir: cfg.Dir, name: cfg.Name, interval: cfg.VerifyInterval, now: cfg.Now, log: cfg.Log,
		notices: map[string]time.Time{}, tracked: map[*trackedConn]struct{}{},
	}
	if s.interval <= 0 {
		s.interval = DefaultVerifyInterval
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	trust, trustErr := loadTrust(s.dir)
	own, ownErr := loadIdentity(s.dir, s.name)
	if err := errors.Join(trustErr, ownErr); err != nil {
		return nil, err // both: an operator corrects them in one go
	}
	if err := own.check(trust, s.dir, s.now()); err != nil {
		return nil, err
	}
	s.trust.Store(trust)
	s.identity.Store(own)
	s.pass.Lock()
	defer s.pass.Unlock()
	s.logNotices(s.currentNotices())
	return s, nil
}

// ServerConfig is for accepting connections. Every peer must have a
// certificate of the authority that meets the passport. Later changes of the
// files apply to each new handshake.
func (s *Store) ServerConfig(passport Passport, alpn ...string) *tls.Config {
	cfg := s.config(passport, alpn)
	cfg.ClientAuth = tls.RequireAnyClientCert // verified by VerifyConnection
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return &s.identity.Load().pair, nil
	}
	return cfg
}

// ClientConfig is for opening connections, with the same demands on the peer.
func (s *Store) ClientConfig(passport Passport, alpn ...string) *tls.Config {
	cfg := s.config(passport, alpn)
	// The chain is verified in VerifyConnection; what is skipped here is the
	// host name, which this system does not use.
	cfg.InsecureSkipVerify = true
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &s.identity.Load().pair, nil
	}
	return cfg
}

// PeerConfig is for connections that either side may open, with the demands of both.
func (s *Store) PeerConfig(passport Passport) *tls.Config {
	cfg := s.ClientConfig(passport)
	server := s.ServerConfig(passport)
	cfg.ClientAuth, cfg.GetCertificate = server.ClientAuth, server.GetCertificate
	return cfg
}

func (s *Store) config(passport Passport, alpn []string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: alpn,
		Time:       s.now,
		// Connections live for weeks; tickets would only be one more way in.
		SessionTicketsDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return s.verifyPeer(cs, passport)
		},
	}
}

func (s *Store) verifyPeer(cs tls.ConnectionState, passport Passport) error {
	if err := s.trust.Load().verify(cs.PeerCertificates, s.now()); err != nil {
		return err
	}
	return passport.Match(cs.PeerCertificates[0])
}

// reload takes over what is new and sound. The two halves are judged apart:
// a broken pair of our own must not keep a new list of revoked certificates
// from taking effect. Only a set whose authority does not fit the pair we have
// is refused as a whole; it is probably a copy half-way through.
func (s *Store) reload() (problems []notice) {
	problem := func(err error) {
		problems = append(problems, notice{"reload " + err.Error(), err.Error()})
	}
	newTrust, err := loadTrust(s.dir)
	if err != nil {
		problem(err)
		newTrust = s.trust.Load()
	}
	newIdentity, err := loadIdentity(s.dir, s.name)
	if err == nil {
		err = newIdentity.check(newTrust, s.dir, s.now())
	}
	if err != nil {
		problem(err)
		newIdentity = s.identity.Load()
		if err := newIdentity.check(newTrust, s.dir, s.now()); errors.Is(err, ErrUntrusted) {
			problem(fmt.Errorf("%s: does not fit the certificate in use; copy the whole set", filepath.Join(s.dir, CAFile)))
			newTrust = s.trust.Load()
		}
	}
	if changed := s.replace(newTrust, newIdentity); changed {
		s.log.Info("certificates reloaded", "folder", s.dir,
			"serial", fmt.Sprintf("%X", newIdentity.pair.Leaf.SerialNumber), "expires", day(newIdentity.pair.Leaf.NotAfter))
	}
	return problems
}

// replace reports whether anything differs from what was in use.
func (s *Store) replace(t *trust, own *identity) bool {
	changed := !t.equal(s.trust.Load()) || !own.equal(s.identity.Load())
	s.trust.Store(t)
	s.identity.Store(own)
	return changed
}

func (s *Store) currentNotices() []notice {
	now := s.now()
	found := append(s.trust.Load().notices(s.dir, now), s.identity.Load().notices(s.dir, now)...)
	keyPath := filepath.Join(s.dir, KeyFile(s.name))
	if info, err := os.Stat(keyPath); err == nil && info.Mode().Perm()&0o007 != 0 {
		found = append(found, notice{"mode " + keyPath, keyPath + ": every user of this machine can use this key; type: chmod 600 " + keyPath})
	}
	return found
}

// logNotices logs what is new, and once a day what goes on. Must hold pass.
func (s *Store) logNotices(found []notice) {
	now := s.now()
	current := make(map[string]time.Time, len(found))
	for _, n := range found {
		last, known := s.notices[n.key]
		if !known || now.Sub(last) >= 24*time.Hour {
			s.log.Warn("certificates: " + n.text)
			last = now
		}
		current[n.key] = last
	}
	s.notices = current
}
