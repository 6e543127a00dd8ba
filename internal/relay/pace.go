package relay

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"time"

	"example.org/mediaproxy/internal/pki"
)

// steady is how long a connection must have lasted to count as a good one.
const steady = 5 * time.Second

// slowRetry is the pause after a dispatcher said that it does not want this
// relay: only an operator can change that, so asking often is only noise.
const slowRetry = 60 * time.Second

// ending says how an attempt to be connected came to its end.
type ending uint8

const (
	endUnreachable ending = iota // no connection, or no TLS
	endLost                      // it stood and broke
	endCertificate               // one side did not like the other's certificate
	endRefused                   // the dispatcher refused the relay in its hello
	endDuplicate                 // another link already reaches this dispatcher
)

// pace decides how long to wait before the next attempt. A first loss is
// usually a restart of the dispatcher and is answered at once; one that
// repeats is not.
type pace struct {
	reconnect time.Duration
	lost      bool // a loss was answered quickly and no steady connection came since
}

func (p *pace) wait(e ending, lived time.Duration) time.Duration {
	if lived >= steady {
		p.lost = false
	}
	switch e {
	case endRefused, endDuplicate:
		return max(slowRetry, p.reconnect)
	case endLost:
		if !p.lost {
			p.lost = true
			return min(time.Second, p.reconnect)
		}
	}
	return p.reconnect
}

// classify tells a certificate problem from a broken connection. The alert of
// a peer that refused our certificate arrives only with the first read in TLS
// 1.3, so a connection that already stood can end this way too.
func classify(err error, stood bool) ending {
	var verify *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var op *net.OpError
	switch {
	case errors.Is(err, errRefused):
		return endRefused
	case errors.Is(err, errDuplicate):
		return endDuplicate
	case errors.As(err, &verify), errors.As(err, &authority), errors.As(err, &invalid),
		errors.As(err, &op) && op.Op == "remote error", refusesPeer(err):
		return endCertificate
	case stood:
		return endLost
	}
	return endUnreachable
}

// refusesPeer says whether our own store found fault with the dispatcher's certificate.
func refusesPeer(err error) bool {
	for _, reason := range []error{pki.ErrNoCertificate, pki.ErrUntrusted, pki.ErrDates, pki.ErrRevoked, pki.ErrPassport} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}
