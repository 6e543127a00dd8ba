package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ErrAlreadyRevoked is the answer to revoking a certificate twice.
var ErrAlreadyRevoked = errors.New("already revoked")

// Revoke adds one certificate to the folder's list. It is named by its file
// (a path, or a name inside the folder with or without .crt) or by its serial
// number in hexadecimal, as openssl prints it. The other certificates are not
// touched; the new list takes effect where it is copied to.
func Revoke(dir, fileOrSerial string, o Options) (serial string, made Made, err error) {
	o = o.withDefaults()
	ca, err := loadAuthority(dir, o.Now())
	if err != nil {
		return "", Made{}, err
	}
	list, err := ca.loadCRL()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", Made{}, err // a damaged list must not be replaced by one that forgets
	}
	number, err := ca.findSerial(fileOrSerial)
	if err != nil {
		return "", Made{}, err
	}
	serial = fmt.Sprintf("%X", number)
	for _, entry := range list.entries {
		if entry.SerialNumber.Cmp(number) == 0 {
			return serial, Made{}, fmt.Errorf("serial %s: %w on %s", serial, ErrAlreadyRevoked, day(entry.RevocationTime))
		}
	}
	entries := append(list.entries, x509.RevocationListEntry{SerialNumber: number, RevocationTime: ca.now})
	made, err = ca.writeCRL(list.nextNumber(), entries, o.Lifetime)
	return serial, made, err
}

func (ca *authority) findSerial(fileOrSerial string) (*big.Int, error) {
	for _, path := range []string{
		fileOrSerial,
		filepath.Join(ca.dir, fileOrSerial),
		filepath.Join(ca.dir, CertFile(fileOrSerial)),
	} {
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			continue
		}
		cert, err := ca.issuedFile(path)
		if err != nil {
			return nil, err
		}
		if cert.Equal(ca.cert) {
			return nil, &FileError{path, errors.New("an authority cannot revoke itself"), "make a new set with: mediaproxy certs --force " + ca.dir}
		}
		return cert.SerialNumber, nil
	}
	return ParseSerial(fileOrSerial)
}

// ParseSerial reads a serial number in hexadecimal, with or without colons and
// the prefixes that openssl prints.
func ParseSerial(s string) (*big.Int, error) {
	digits := strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(s), "serial="), "0x")
	digits = strings.ReplaceAll(digits, ":", "")
	number, ok := new(big.Int).SetString(digits, 16)
	// 20 octets are the most a certificate may have (RFC 5280, 4.1.2.2).
	if !ok || number.Sign() <= 0 || number.BitLen() > 160 || strings.ContainsAny(digits, "+-_") {
		return nil, fmt.Errorf("%q is neither a certificate file nor a serial number in hexadecimal; see one with: openssl x509 -noout -serial -in FILE", s)
	}
	return number, nil
}

// loadCRL reads the list that this authority has signed.
func (ca *authority) loadCRL() (revocationList, error) {
	data, err := folderFile(ca.dir, CRLFile, "")
	if err != nil {
		return revocationList{}, err
	}
	path := filepath.Join(ca.dir, CRLFile)
	hint := "restore it from a copy: a new one would forget who was revoked; or move it away to begin with an empty one"
	lists, err := parseCRLs(data)
	if err != nil {
		return revocationList{}, &FileError{path, err, hint}
	}
	if len(lists) > 1 {
		return revocationList{}, &FileError{path, errors.New("has several lists; only one can be extended"), ""}
	}
	if lists[0].signedBy(ca.cert) != nil {
		return revocationList{}, &FileError{path, errors.New("signature not made by the authority in " + CAFile), hint}
	}
	return lists[0], nil
}

// nextNumber follows the number of the list before. Lists of version 1 have none.
func (list revocationList) nextNumber() *big.Int {
	if list.number == nil {
		return big.NewInt(1)
	}
	return new(big.Int).Add(list.number, big.NewInt(1))
}

func (ca *authority) writeCRL(number *big.Int, entries []x509.RevocationListEntry, lifetime time.Duration) (Made, error) {
	expires := ca.now.Add(lifetime)
	for i := range entries {
		entries[i].Raw = nil
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: number, ThisUpdate: ca.now.Add(-clockSkew), NextUpdate: expires, RevokedCertificateEntries: entries,
	}, ca.listIssuer(), ca.key)
	if err != nil {
		return Made{}, fmt.Errorf("sign %s: %w", CRLFile, err)
	}
	path := filepath.Join(ca.dir, CRLFile)
	if err := writeFile(path, pem.EncodeToMemory(&pem.Block{Type: pemCRL, Bytes: der}), 0o644); err != nil {
		return Made{}, err
	}
	return Made{Path: path, Expires: expires}, nil
}

// listIssuer is the authority as CreateRevocationList wants it. Authorities made
// with openssl often name no key usage, which by RFC 5280 section 4.2.1.3 forbids
// nothing, and old ones have no key identifier.
func (ca *authority) listIssuer() *x509.Certificate {
	issuer := *ca.cert
	if issuer.KeyUsage == 0 {
		issuer.KeyUsage = x509.KeyUsageCRLSign
	}
	if len(issuer.SubjectKeyId) == 0 {
		sum := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
		issuer.SubjectKeyId = sum[:20]
	}
	return &issuer
}
