package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// oldList is a signed list of version 1 (RFC 5280 section 5.1 without the
// version and the extensions), as openssl makes it by default.
type oldList struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

type oldTBS struct {
	Algorithm            pkix.AlgorithmIdentifier
	Issuer               asn1.RawValue
	ThisUpdate, NextTime time.Time
	Revoked              []oldEntry `asn1:"optional"`
}

type oldEntry struct {
	Serial *big.Int
	When   time.Time
}

var (
	rsaMD5      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 4}
	ecdsaSHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
)

// makeOldList writes crl.pem as a list of version 1. It is signed with SHA-256,
// whatever it claims.
func makeOldList(t testing.TB, dir string, claims asn1.ObjectIdentifier, serials ...*big.Int) {
	t.Helper()
	ca, err := loadAuthority(dir, testTime)
	if err != nil {
		t.Fatal(err)
	}
	must := func(der []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	algorithm := pkix.AlgorithmIdentifier{Algorithm: claims}
	tbs := oldTBS{Algorithm: algorithm, Issuer: asn1.RawValue{FullBytes: ca.cert.RawSubject}, ThisUpdate: testTime, NextTime: testTime.Add(DefaultLifetime)}
	for _, serial := range serials {
		tbs.Revoked = append(tbs.Revoked, oldEntry{serial, testTime})
	}
	body := must(asn1.Marshal(tbs))
	sum := sha256.Sum256(body)
	signature := must(ca.key.Sign(rand.Reader, sum[:], crypto.SHA256))
	der := must(asn1.Marshal(oldList{asn1.RawValue{FullBytes: body}, algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}}))
	if _, err := x509.ParseRevocationList(der); err == nil {
		t.Fatal("the test's list is not of version 1")
	}
	write(t, dir, CRLFile, string(pem.EncodeToMemory(&pem.Block{Type: pemCRL, Bytes: der})))
}

func TestListOfVersion1(t *testing.T) {
	dir := testFolder(t)
	relay := loadCert(t, dir, "relay.crt")
	cfg := Config{Dir: dir, Name: Relay, Now: testOptions().Now}

	makeOldList(t, dir, ecdsaSHA256)
	if _, err := Open(cfg); err != nil {
		t.Fatalf("an empty list: %v", err)
	}
	makeOldList(t, dir, ecdsaSHA256, big.NewInt(77), relay.SerialNumber)
	if _, err := Open(cfg); !errors.Is(err, ErrRevoked) {
		t.Errorf("a list with the relay: %v", err)
	}
	flip(t, dir, CRLFile)
	if _, err := Open(cfg); err == nil || errors.Is(err, ErrRevoked) {
		t.Errorf("a changed list: %v", err)
	}
	// Revoking one more makes a list of version 2 that forgets nobody.
	makeOldList(t, dir, ecdsaSHA256, relay.SerialNumber)
	revoke(t, dir, Dispatcher)
	for _, name := range []string{Relay, Dispatcher} {
		if _, err := Open(Config{Dir: dir, Name: name, Now: cfg.Now}); !errors.Is(err, ErrRevoked) {
			t.Errorf("%s after extending the list: %v", name, err)
		}
	}
}

func FuzzParseCRLs(f *testing.F) {
	dir := testFolder(f)
	revoke(f, dir, Relay)
	f.Add([]byte(read(f, dir, CRLFile)))
	makeOldList(f, dir, ecdsaSHA256, big.NewInt(77))
	f.Add([]byte(read(f, dir, CRLFile)))
	f.Add([]byte("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"))
	stranger := loadCert(f, testFolder(f), CAFile)
	f.Fuzz(func(t *testing.T, data []byte) {
		lists, err := parseCRLs(data)
		if (err == nil) != (len(lists) > 0) {
			t.Fatalf("%d lists and %v", len(lists), err)
		}
		entries := 0
		for _, list := range lists {
			entries += len(list.entries)
			if list.signedBy(stranger) == nil {
				t.Fatal("accepted as signed by an authority that did not sign it")
			}
		}
		if entries > len(data)/8 { // an entry takes more than 8 bytes of DER
			t.Fatalf("%d entries from %d bytes", entries, len(data))
		}
		if again, err := parseCRLs(append([]byte("text before\n"), data...)); err == nil && len(again) != len(lists) && len(lists) > 0 {
			t.Fatalf("text before the list changes %d lists into %d", len(lists), len(again))
		}
	})
}

func FuzzParseCertificates(f *testing.F) {
	dir := testFolder(f)
	f.Add([]byte(read(f, dir, CAFile)))
	f.Add([]byte("CA:\n" + read(f, dir, CAFile) + read(f, dir, "relay.crt")))
	f.Add([]byte(read(f, dir, "relay.key")))
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := parseCertificates(data)
		if (err == nil) != (len(certs) > 0) {
			t.Fatalf("%d certificates and %v", len(certs), err)
		}
		var text []byte
		for _, cert := range certs {
			text = pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: cert.Raw})
			again, err := parseCertificates(text)
			if err != nil || len(again) != 1 || !bytes.Equal(again[0].Raw, cert.Raw) {
				t.Fatalf("parse, write, parse differs: %v", err)
			}
		}
	})
}

func FuzzParseKey(f *testing.F) {
	dir := testFolder(f)
	f.Add([]byte(read(f, dir, "relay.key")))
	f.Add([]byte(read(f, dir, "relay.crt")))
	f.Add([]byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := parseKey(data)
		if (err == nil) != (key != nil) {
			t.Fatalf("key %v and %v", key, err)
		}
		if key == nil {
			return
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return // a curve that Go reads but does not write
		}
		again, err := parseKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		if err != nil || !sameKey(again.Public(), key.Public()) {
			t.Fatalf("parse, write, parse differs: %v", err)
		}
	})
}

func TestWriteFileLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(filepath.Join(dir, "taken"), []byte("x"), 0o600); err == nil {
		t.Fatal("a folder was overwritten")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}
