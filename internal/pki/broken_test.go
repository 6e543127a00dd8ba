package pki

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Every broken folder gets an error that names the file, says what is wrong
// and what to do.
func TestOpenBroken(t *testing.T) {
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	content := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { write(t, dir, name, text) }
	}
	fromOther := func(names ...string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			other := testFolder(t)
			for _, name := range names {
				copyFile(t, other, name, dir, name)
			}
		}
	}
	cut := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			text := read(t, dir, name)
			write(t, dir, name, text[:len(text)/2])
		}
	}
	for name, tc := range map[string]struct {
		spoil func(*testing.T, string)
		now   time.Duration // after testTime
		is    error
		want  []string
	}{
		"no folder at all": {spoil: func(t *testing.T, dir string) { os.RemoveAll(dir) }, is: os.ErrNotExist, want: []string{CAFile, "relay.crt", "mediaproxy certs "}},
		"no ca.pem":        {spoil: remove(CAFile), is: os.ErrNotExist, want: []string{CAFile + ": there is no such file", "mediaproxy certs "}},
		"no crl.pem":       {spoil: remove(CRLFile), is: os.ErrNotExist, want: []string{CRLFile + ": there is no such file", "empty list serves", "mediaproxy certs renew "}},
		"no certificate":   {spoil: remove("relay.crt"), is: os.ErrNotExist, want: []string{"relay.crt: there is no such file", "mediaproxy certs "}},
		"no key":           {spoil: remove("relay.key"), is: os.ErrNotExist, want: []string{"relay.key: there is no such file", "copy it"}},
		"key is a folder": {spoil: func(t *testing.T, dir string) {
			remove("relay.key")(t, dir)
			os.Mkdir(filepath.Join(dir, "relay.key"), 0o755)
		}, want: []string{"relay.key: read: is a directory"}},
		"garbage authority":        {spoil: content(CAFile, "hello"), want: []string{CAFile, "not PEM", "copy it again"}},
		"garbage certificate":      {spoil: content("relay.crt", "\x00\x01"), want: []string{"relay.crt", "not PEM"}},
		"garbage in the block":     {spoil: content("relay.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), want: []string{"relay.crt: certificate 1:"}},
		"empty certificate":        {spoil: content("relay.crt", " \n"), want: []string{"relay.crt: the file is empty"}},
		"truncated certificate":    {spoil: cut("relay.crt"), want: []string{"relay.crt: the CERTIFICATE in it is cut off"}},
		"truncated key":            {spoil: cut("relay.key"), want: []string{"relay.key: the PRIVATE KEY in it is cut off"}},
		"garbage key":              {spoil: content("relay.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), want: []string{"relay.key: parse private key"}},
		"key with passphrase":      {spoil: content("relay.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), want: []string{"relay.key: the key is protected by a passphrase", "openssl pkey"}},
		"certificate as key":       {spoil: func(t *testing.T, dir string) { copyFile(t, dir, "relay.crt", dir, "relay.key") }, want: []string{"relay.key: no complete PEM block"}},
		"key of another":           {spoil: func(t *testing.T, dir string) { copyFile(t, dir, "dispatcher.key", dir, "relay.key") }, want: []string{"relay.key: is the key of another certificate than relay.crt", "copy both"}},
		"truncated list":           {spoil: cut(CRLFile), want: []string{CRLFile + ": the X509 CRL in it is cut off", "certs renew"}},
		"list cut inside":          {spoil: func(t *testing.T, dir string) { shorten(t, dir, CRLFile) }, want: []string{CRLFile + ": list 1:"}},
		"certificate as list":      {spoil: func(t *testing.T, dir string) { copyFile(t, dir, CAFile, dir, CRLFile) }, want: []string{CRLFile + `: no complete PEM block "X509 CRL"`}},
		"list of another":          {spoil: fromOther(CRLFile), want: []string{CRLFile + ": signature not made by the authority", "belongs to another"}},
		"list changed":             {spoil: func(t *testing.T, dir string) { flip(t, dir, CRLFile) }, want: []string{CRLFile + ": signature not made by the authority", "changed after signing"}},
		"weak signature":           {spoil: func(t *testing.T, dir string) { makeOldList(t, dir, rsaMD5) }, want: []string{CRLFile + ": signed with MD5-RSA, which is too weak", "certs renew"}},
		"pair of another":          {spoil: fromOther("relay.crt", "relay.key"), is: ErrUntrusted, want: []string{"relay.crt: not issued by the authority", "same set"}},
		"authority of another":     {spoil: fromOther(CAFile, CRLFile), is: ErrUntrusted, want: []string{"relay.crt: not issued by the authority"}},
		"revoked":                  {spoil: func(t *testing.T, dir string) { revoke(t, dir, "relay.crt") }, is: ErrRevoked, want: []string{"relay.crt: certificate revoked", "on 2030-06-01", "certs renew"}},
		"expired":                  {now: DefaultLifetime + time.Hour, is: ErrDates, want: []string{"relay.crt: certificate not valid at this time", "expired on 2035", "certs renew"}},
		"clock far behind":         {now: -48 * time.Hour, is: ErrDates, want: []string{"relay.crt: certificate not valid at this time", "the clock says 2030-05-30"}},
		"two things wrong at once": {spoil: func(t *testing.T, dir string) { remove(CRLFile)(t, dir); remove("relay.key")(t, dir) }, want: []string{CRLFile, "relay.key"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := testFolder(t)
			if tc.spoil != nil {
				tc.spoil(t, dir)
			}
			s, err := Open(Config{Dir: dir, Name: Relay, Now: func() time.Time { return testTime.Add(tc.now) }})
			if err == nil || s != nil {
				t.Fatal("it opens")
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("%v is not %v", err, tc.is)
			}
			wantContains(t, "error", err.Error(), tc.want...)
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, dir) {
					t.Errorf("the error does not begin with the file: %s", line)
				}
			}
		})
	}
}

// An expired authority is named as such and not as an unknown one.
func TestExpiredAuthority(t *testing.T) {
	dir := testFolder(t)
	late := testTime.Add(caLifetime - time.Hour)
	options := testOptions()
	options.Now = func() time.Time { return late }
	if _, err := Renew(dir, options); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{Dir: dir, Name: Relay, Now: func() time.Time { return late }})
	if err != nil {
		t.Fatal(err)
	}
	trust := s.trust.Load()
	leaf := *s.identity.Load().pair.Leaf
	leaf.NotAfter = late.Add(48 * time.Hour) // as if it had been issued for longer
	err = trust.verify([]*x509.Certificate{&leaf}, late.Add(24*time.Hour))
	if !errors.Is(err, ErrDates) || !strings.Contains(err.Error(), "the authority's own") {
		t.Errorf("got %v", err)
	}
	if _, err := Renew(dir, Options{Now: func() time.Time { return late.Add(2 * time.Hour) }}); !errors.Is(err, ErrDates) {
		t.Errorf("renewing with an expired authority: %v", err)
	}
}

// While one authority replaces another, ca.pem and crl.pem hold both.
func TestTwoAuthorities(t *testing.T) {
	old, new := testFolder(t), testFolder(t)
	both := t.TempDir()
	write(t, both, CAFile, "old:\n"+read(t, old, CAFile)+"new:\n"+read(t, new, CAFile))
	write(t, both, CRLFile, read(t, new, CRLFile)+read(t, old, CRLFile))
	copyFile(t, new, "dispatcher.crt", both, "dispatcher.crt")
	copyFile(t, new, "dispatcher.key", both, "dispatcher.key")
	c, log := &clock{t: testTime}, &logBuffer{}
	s := open(t, both, Dispatcher, c, log)
	for _, dir := range []string{old, new} {
		peer := open(t, dir, Relay, c, log).identity.Load().pair.Leaf
		if err := s.trust.Load().verify([]*x509.Certificate{peer}, testTime); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
		revoke(t, dir, Relay)
	}
	write(t, both, CRLFile, read(t, old, CRLFile))
	s.Verify()
	wantContains(t, "log", log.take(), "no list of")
	peer := func(dir string) error {
		chain, err := parseCertificates([]byte(read(t, dir, "relay.crt")))
		if err != nil {
			t.Fatal(err)
		}
		return s.trust.Load().verify(chain, testTime)
	}
	if err := peer(old); !errors.Is(err, ErrRevoked) {
		t.Errorf("the old authority's relay: %v", err)
	}
	if err := peer(new); err != nil {
		t.Errorf("the new authority's relay is on no list here: %v", err)
	}
}

// Keys as other tools write them.
func TestKeyForms(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for kind, block := range map[string]*pem.Block{
		"PKCS#1": {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)},
		"PKCS#8": {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		text := append([]byte("-----BEGIN EC PARAMETERS-----\nAAAA\n-----END EC PARAMETERS-----\n"), pem.EncodeToMemory(block)...)
		got, err := parseKey(text)
		if err != nil || !sameKey(got.Public(), key.Public()) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// shorten takes the last bytes off the DER inside a PEM file.
func shorten(t *testing.T, dir, name string) {
	block, _ := pem.Decode([]byte(read(t, dir, name)))
	block.Bytes = block.Bytes[:len(block.Bytes)-10]
	write(t, dir, name, string(pem.EncodeToMemory(block)))
}

// flip changes one bit of the signature.
func flip(t *testing.T, dir, name string) {
	block, _ := pem.Decode([]byte(read(t, dir, name)))
	block.Bytes[len(block.Bytes)-1] ^= 1
	write(t, dir, name, string(pem.EncodeToMemory(block)))
}
