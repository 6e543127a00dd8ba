package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options for making certificates. The zero value is ready to use.
type Options struct {
	// Subject is what all certificates have in common, for passports to name.
	// Its CommonName is ignored; each certificate has its own.
	Subject pkix.Name
	// Email goes into the subject of every certificate, if given.
	Email string
	// CommonNames replaces the common names that Create makes up, by pair name.
	CommonNames map[string]string
	// Lifetime is how long certificates other than the authority are valid.
	Lifetime time.Duration
	// Force allows files to be replaced.
	Force bool
	Now   func() time.Time
}

const (
	// DefaultLifetime is long because every copy is made by hand, and Watch
	// warns a month before the end.
	DefaultLifetime = 5 * 365 * 24 * time.Hour
	caLifetime      = 25 * 365 * 24 * time.Hour
	// clockSkew lets a machine whose clock is behind use a new certificate at once.
	clockSkew = 24 * time.Hour
)

// DefaultOrganization is the subject's O when Options name none.
const DefaultOrganization = "MediaProxy"

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Lifetime <= 0 {
		o.Lifetime = DefaultLifetime
	}
	if len(o.Subject.Organization) == 0 {
		o.Subject.Organization = []string{DefaultOrganization}
	}
	return o
}

func (o Options) subject(commonName string) pkix.Name {
	subject := o.Subject
	subject.CommonName = commonName
	if o.Email != "" {
		subject.ExtraNames = append(slices.Clone(subject.ExtraNames), pkix.AttributeTypeAndValue{
			Type: attributeIDs["EMAIL"],
			// RFC 5280 section 4.1.2.6 wants IA5String for this one attribute.
			Value: asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagIA5String, Bytes: []byte(o.Email)},
		})
	}
	return subject
}

func (o Options) commonName(pair string) string {
	if name := o.CommonNames[pair]; name != "" {
		return name
	}
	return "MediaProxy " + pair
}

// A Made file is one that Create, Renew, Issue or Revoke has written.
type Made struct {
	Path    string
	Subject string    // of a certificate
	Serial  string    // of a certificate, hexadecimal
	Expires time.Time // of a certificate or list
}

// An authority signs; it is a loaded ca.pem with its ca.key.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
	now  time.Time
}

// Create makes a folder with a new authority, an empty list of revoked
// certificates, and a pair each for dispatcher and relay. A folder that does not
// exist appears with all files in it or not at all.
func Create(dir string, o Options) ([]Made, error) {
	o = o.withDefaults()
	if _, err := os.Lstat(dir); err == nil {
		names := []string{CAFile, CAKeyFile, CRLFile}
		for _, pair := range []string{Dispatcher, Relay} {
			names = append(names, CertFile(pair), KeyFile(pair))
		}
		if err := refuseExisting(dir, names, o.Force); err != nil {
			return nil, err
		}
		return fill(dir, o)
	}
	var made []Made
	err := newFolder(dir, func(building string) (err error) {
		made, err = fill(building, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range made {
		made[i].Path = filepath.Join(dir, filepath.Base(made[i].Path))
	}
	return made, nil
}

// fill makes all files of a set.
func fill(dir string, o Options) ([]Made, error) {
	ca, made, err := newAuthority(dir, o)
	if err != nil {
		return made, err
	}
	for _, pair := range []string{Dispatcher, Relay} {
		m, err := ca.issue(pair, o.subject(o.commonName(pair)), nil, o.Lifetime)
		if err != nil {
			return made, err
		}
		made = append(made, m...)
	}
	m, err := ca.writeCRL(big.NewInt(1), nil, o.Lifetime)
	return append(made, m), err
}

// Issue adds one more pair to a folder made by Create: a further relay, or an
// operator. The common name is name unless Options.CommonNames has another.
func Issue(dir, name string, o Options) ([]Made, error) {
	o = o.withDefaults()
	if name == "" || name == "ca" || name == "crl" || strings.ContainsAny(name, `/\`) || name[0] == '.' {
		return nil, fmt.Errorf("%q cannot be the name of a pair of files", name)
	}
	ca, err := loadAuthority(dir, o.Now())
	if err != nil {
		return nil, err
	}
	if err := refuseExisting(dir, []string{CertFile(name), KeyFile(name)}, o.Force); err != nil {
		return nil, err
	}
	commonName := o.CommonNames[name]
	if commonName == "" {
		commonName = name
	}
	return ca.issue(name, o.subject(commonName), nil, o.Lifetime)
}

// Renew keeps the authority, replaces every pair in the folder that it has
// issued by one with the same subject and a new key, and signs the list of
// revoked certificates again.
func Renew(dir string, o Options) ([]Made, error) {
	o = o.withDefaults()
	ca, err := loadAuthority(dir, o.Now())
	if err != nil {
		return nil, err
	}
	list, err := ca.loadCRL()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err // a damaged list must not be replaced by one that forgets
	}
	pairs, err := ca.pairs()
	if err != nil {
		return nil, err
	}
	// The list first: what can fail for good fails before anything has changed.
	m, err := ca.writeCRL(list.nextNumber(), list.entries, o.Lifetime)
	if err != nil {
		return nil, err
	}
	made := []Made{m}
	for _, pair := range pairs {
		m, err := ca.issue(pair.name, pair.cert.Subject, pair.cert.RawSubject, o.Lifetime)
		if err != nil {
			return made, err
		}
		made = append(made, m...)
	}
	return made, nil
}

func newAuthority(dir string, o Options) (*authority, []Made, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	now := o.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: o.subject(o.commonName("authority")),
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(caLifetime),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	ca := &authority{dir: dir, cert: cert, key: key, now: now}
	made, err := ca.writePair(CAFile, CAKeyFile, cert, key)
	return ca, made, err
}

func loadAuthority(dir string, now time.Time) (*authority, error) {
	hint := "only the folder in which the authority was made can do this; without its " + CAKeyFile + ", " + hintCreate(dir)
	data, err := folderFile(dir, CAFile, hint)
	if err != nil {
		return nil, err
	}
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, &FileError{filepath.Join(dir, CAFile), err, hint}
	}
	data, err = folderFile(dir, CAKeyFile, hint)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, &FileError{filepath.Join(dir, CAKeyFile), err, ""}
	}
	for _, cert := range certs {
		if sameKey(cert.PublicKey, key.Public()) {
			if err := checkDates(cert, now); err != nil {
				return nil, &FileError{filepath.Join(dir, CAFile), err, "make a new set with: mediaproxy certs --force " + dir}
			}
			return &authority{dir: dir, cert: cert, key: key, now: now}, nil
		}
	}
	return nil, &FileError{filepath.Join(dir, CAKeyFile), errors.New("is not the key of " + CAFile), "use the two files of the same set"}
}

// issue makes one pair. A rawSubject takes the place of the subject: renewed
// certificates keep theirs to the byte.
func (ca *authority) issue(name string, subject pkix.Name, rawSubject []byte, lifetime time.Duration) ([]Made, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	expires := ca.now.Add(lifetime)
	if expires.After(ca.cert.NotAfter) {
		expires = ca.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: subject, RawSubject: rawSubject,
		NotBefore: ca.now.Add(-clockSkew), NotAfter: expires,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		// Both ends of a link demand a certificate, so each is used both ways.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", CertFile(name), err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return ca.writePair(CertFile(name), KeyFile(name), cert, key)
}

func (ca *authority) writePair(certName, keyName string, cert *x509.Certificate, key *ecdsa.PrivateKey) ([]Made, error) {
	// The SEC 1 form is the one that every version of GnuTLS and OpenSSL reads
	// through every one of its interfaces.
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	certPath, keyPath := filepath.Join(ca.dir, certName), filepath.Join(ca.dir, keyName)
	if err := writeFile(keyPath, pem.EncodeToMemory(&pem.Block{Type: pemECKey, Bytes: der}), 0o600); err != nil {
		return nil, err
	}
	if err := writeFile(certPath, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: cert.Raw}), 0o644); err != nil {
		return nil, err
	}
	return []Made{
		{Path: certPath, Subject: cert.Subject.String(), Serial: fmt.Sprintf("%X", cert.SerialNumber), Expires: cert.NotAfter},
		{Path: keyPath},
	}, nil
}

type namedCert struct {
	name string
	cert *x509.Certificate
}

// pairs finds every pair of the folder that this authority has issued.
func (ca *authority) pairs() ([]namedCert, error) {
	paths, err := filepath.Glob(filepath.Join(ca.dir, "*.crt"))
	if err != nil {
		return nil, err
	}
	var found []namedCert
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".crt")
		if _, err := os.Stat(filepath.Join(ca.dir, KeyFile(name))); err != nil {
			continue // a copy of somebody's certificate, whose key is elsewhere
		}
		cert, err := ca.issuedFile(path)
		if err != nil {
			return nil, err
		}
		found = append(found, namedCert{name, cert})
	}
	return found, nil
}

// issuedFile reads a certificate and makes sure that it is one of ours.
func (ca *authority) issuedFile(path string) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, &FileError{path, err, ""}
	}
	if err := ca.cert.CheckSignature(certs[0].SignatureAlgorithm, certs[0].RawTBSCertificate, certs[0].Signature); err != nil {
		return nil, &FileError{path, ErrUntrusted, "move it away if it does not belong here"}
	}
	return certs[0], nil
}

// newSerial makes a number that no certificate has had before: 127 random bits
// are at most the 20 octets of RFC 5280 and never negative.
func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}
