package pki

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// trust is what peers are measured by: ca.pem and crl.pem. It is replaced as a
// whole, never changed.
type trust struct {
	authorities []*x509.Certificate
	roots       *x509.CertPool
	revoked     []revokedBy
	source      []byte // both files as read, to see whether they changed
}

// revokedBy holds the lists of one authority.
type revokedBy struct {
	authority *x509.Certificate
	lists     []revocationList
	serials   map[string]time.Time // by decimal serial number
}

// identity is what we show to peers. It is replaced as a whole.
type identity struct {
	certFile string
	pair     tls.Certificate // with Leaf
}

// folderFile reads one file of the folder; a missing or unreadable one gets the
// hint that helps.
func folderFile(dir, name, hint string) ([]byte, error) {
	path := filepath.Join(dir, name)
	data, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			hint = hintReadable(path)
		}
		return nil, &FileError{path, err, hint}
	}
	return data, nil
}

func loadTrust(dir string) (*trust, error) {
	caPath, crlPath := filepath.Join(dir, CAFile), filepath.Join(dir, CRLFile)
	data, err := folderFile(dir, CAFile, hintCreate(dir)+", or copy it from the machine where the others were made")
	if err != nil {
		return nil, err
	}
	t := &trust{roots: x509.NewCertPool(), source: data}
	if t.authorities, err = parseCertificates(data); err != nil {
		return nil, &FileError{caPath, err, "copy it again from the machine where it was made"}
	}
	for _, ca := range t.authorities {
		t.roots.AddCert(ca)
		t.revoked = append(t.revoked, revokedBy{authority: ca, serials: map[string]time.Time{}})
	}
	hintCRL := "an empty list serves; " + hintRenew(dir)
	data, err = folderFile(dir, CRLFile, hintCRL)
	if err != nil {
		return nil, err
	}
	t.source = append(t.source, data...)
	lists, err := parseCRLs(data)
	if err != nil {
		return nil, &FileError{crlPath, err, hintCRL}
	}
	for _, list := range lists {
		if err := t.add(list); err != nil {
			return nil, &FileError{crlPath, err, hintRenew(dir)}
		}
	}
	return t, nil
}

// add files the list under the authority that signed it.
func (t *trust) add(list revocationList) error {
	for i, r := range t.revoked {
		err := list.signedBy(r.authority)
		var weak x509.InsecureAlgorithmError
		if errors.As(err, &weak) {
			return fmt.Errorf("signed with %s, which is too weak", x509.SignatureAlgorithm(weak))
		}
		if err != nil {
			continue
		}
		t.revoked[i].lists = append(r.lists, list)
		for _, entry := range list.entries {
			r.serials[entry.SerialNumber.String()] = entry.RevocationTime
		}
		return nil
	}
	return errors.New("signature not made by the authority in " + CAFile + ": it belongs to another, or was changed after signing")
}

func loadIdentity(dir, name string) (*identity, error) {
	certPath, keyPath := filepath.Join(dir, CertFile(name)), filepath.Join(dir, KeyFile(name))
	hint := hintCreate(dir) + ", or copy it from the machine where " + CAFile + " was made"
	data, err := folderFile(dir, CertFile(name), hint)
	if err != nil {
		return nil, err
	}
	chain, err := parseCertificates(data)
	if err != nil {
		return nil, &FileError{certPath, err, hint}
	}
	data, err = folderFile(dir, KeyFile(name), hint)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, &FileError{keyPath, err, hint}
	}
	if !sameKey(chain[0].PublicKey, key.Public()) {
		return nil, &FileError{keyPath, errors.New("is the key of another certificate than " + CertFile(name)),
			"copy both files of the pair together"}
	}
	own := &identity{certFile: certPath, pair: tls.Certificate{PrivateKey: key, Leaf: chain[0]}}
	for _, cert := range chain {
		own.pair.Certificate = append(own.pair.Certificate, cert.Raw)
	}
	return own, nil
}

func (t *trust) equal(other *trust) bool { return bytes.Equal(t.source, other.source) }

func (own *identity) equal(other *identity) bool {
	return slices.EqualFunc(own.pair.Certificate, other.pair.Certificate, bytes.Equal)
}

func sameKey(a, b crypto.PublicKey) bool {
	comparable, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && comparable.Equal(b)
}

// check tells whether peers that have the same authority would accept us now.
func (own *identity) check(t *trust, dir string, now time.Time) error {
	chain, err := own.chain()
	if err != nil {
		return &FileError{own.certFile, err, hintRenew(dir)}
	}
	if err := t.verify(chain, now); err != nil {
		hint := hintRenew(dir)
		if errors.Is(err, ErrUntrusted) {
			hint = "use a certificate and a " + CAFile + " of the same set"
		}
		return &FileError{own.certFile, err, hint}
	}
	return nil
}

func (own *identity) chain() ([]*x509.Certificate, error) {
	chain := []*x509.Certificate{own.pair.Leaf}
	for _, der := range own.pair.Certificate[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		chain = append(chain, cert)
	}
	return chain, nil
}

// verify checks a peer's certificates: dates, chain to an authority, lists of
// revoked ones. Extended key usage is not looked at, because certificates made
// for the original programs carry none that fits.
func (t *trust) verify(peer []*x509.Certificate, now time.Time) error {
	if len(peer) == 0 {
		return fmt.Errorf("%w: the peer showed none", ErrNoCertificate)
	}
	leaf := peer[0]
	if err := checkDates(leaf, now); err != nil {
		return err
	}
	options := x509.VerifyOptions{
		Roots: t.roots, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, cert := range peer[1:] {
		options.Intermediates.AddCert(cert)
	}
	chains, err := leaf.Verify(options)
	if err != nil {
		return t.explainChain(leaf, err, now)
	}
	for _, chain := range chains {
		if err = t.checkRevoked(chain); err == nil {
			return nil
		}
	}
	return err
}

func checkDates(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.After(cert.NotAfter):
		return fmt.Errorf("%w: %s expired on %s", ErrDates, describe(cert), day(cert.NotAfter))
	case now.Before(cert.NotBefore):
		return fmt.Errorf("%w: %s begins on %s, and the clock says %s", ErrDates, describe(cert), day(cert.NotBefore), day(now))
	}
	return nil
}

// explainChain finds words for a failed verification: an expired authority
// reads as such and not as an unknown one.
func (t *trust) explainChain(leaf *x509.Certificate, err error, now time.Time) error {
	for _, ca := range t.authorities {
		if bytes.Equal(leaf.RawIssuer, ca.RawSubject) && ca.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) == nil {
			if dates := checkDates(ca, now); dates != nil {
				return fmt.Errorf("the authority's own %w", dates)
			}
		}
	}
	return fmt.Errorf("%w: %s: %w", ErrUntrusted, describe(leaf), err)
}

// checkRevoked walks one verified chain from the leaf up.
func (t *trust) checkRevoked(chain []*x509.Certificate) error {
	for i := range len(chain) - 1 {
		cert, issuer := chain[i], chain[i+1]
		for _, r := range t.revoked {
			if !sameKey(r.authority.PublicKey, issuer.PublicKey) {
				continue
			}
			if when, found := r.serials[cert.SerialNumber.String()]; found {
				return fmt.Errorf("%w: %s on %s", ErrRevoked, describe(cert), day(when))
			}
		}
	}
	return nil
}

// notice is something an operator should know although it stops nothing yet.
// key stays the same while the condition lasts.
type notice struct{ key, text string }

// expiryWarning is how long before a file goes out of date its warnings begin:
// a month leaves time to plan a copy to every machine.
const expiryWarning = 30 * 24 * time.Hour

func (t *trust) notices(dir string, now time.Time) []notice {
	var found []notice
	for _, r := range t.revoked {
		found = appendExpiry(found, filepath.Join(dir, CAFile), r.authority.NotAfter, now, "make a new set with: mediaproxy certs --force "+dir)
		if len(r.lists) == 0 {
			found = append(found, notice{"no list " + r.authority.SerialNumber.String(),
				filepath.Join(dir, CRLFile) + ": no list of " + describe(r.authority) + ": its certificates cannot be revoked"})
		}
		if newest := newestList(r.lists); newest != nil && !newest.expires.IsZero() {
			found = appendExpiry(found, filepath.Join(dir, CRLFile), newest.expires, now, "it is still applied; "+hintRenew(dir))
		}
	}
	return found
}

func (own *identity) notices(dir string, now time.Time) []notice {
	return appendExpiry(nil, own.certFile, own.pair.Leaf.NotAfter, now, hintRenew(dir))
}

func newestList(lists []revocationList) *revocationList {
	var newest *revocationList
	for i := range lists {
		if newest == nil || lists[i].issued.After(newest.issued) {
			newest = &lists[i]
		}
	}
	return newest
}

func appendExpiry(found []notice, path string, expires, now time.Time, hint string) []notice {
	switch {
	case now.After(expires):
		return append(found, notice{"expired " + path, path + ": EXPIRED on " + day(expires) + "; " + hint})
	case now.After(expires.Add(-expiryWarning)):
		return append(found, notice{"expires " + path, path + ": expires on " + day(expires) + "; " + hint})
	}
	return found
}

// describe names a certificate for people.
func describe(cert *x509.Certificate) string {
	return fmt.Sprintf("%q, serial %X", cert.Subject.String(), cert.SerialNumber)
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
