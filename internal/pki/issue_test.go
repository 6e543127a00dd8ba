package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func loadCert(t testing.TB, dir, name string) *x509.Certificate {
	t.Helper()
	certs, err := parseCertificates([]byte(read(t, dir, name)))
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

func TestCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "tls")
	made, err := Create(dir, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]fs.FileMode{
		CAFile: 0o644, CAKeyFile: 0o600, CRLFile: 0o644,
		"dispatcher.crt": 0o644, "dispatcher.key": 0o600, "relay.crt": 0o644, "relay.key": 0o600,
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(made) != len(modes) || len(entries) != len(modes) {
		t.Errorf("made %d files, found %d, want %d", len(made), len(entries), len(modes))
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if want, known := modes[entry.Name()]; !known || info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", entry.Name(), info.Mode(), want)
		}
	}

	ca := loadCert(t, dir, CAFile)
	if !ca.IsCA || ca.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("authority: CA %v, usage %b", ca.IsCA, ca.KeyUsage)
	}
	relay := loadCert(t, dir, "relay.crt")
	key, ok := relay.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		t.Errorf("key is %T", relay.PublicKey)
	}
	if relay.IsCA || len(relay.ExtKeyUsage) != 2 || relay.Subject.CommonName != "MediaProxy relay" {
		t.Errorf("relay: CA %v, extended usage %v, subject %s", relay.IsCA, relay.ExtKeyUsage, relay.Subject)
	}
	if err := passport(t, `O:Phones\, Inc, C:NL, EMAIL:ops@example.com`).Match(relay); err != nil {
		t.Error(err)
	}
	if made[0].Path != filepath.Join(dir, CAFile) || made[0].Serial == "" || !made[0].Expires.Equal(ca.NotAfter) {
		t.Errorf("first file made: %+v", made[0])
	}
}

func TestCreateRefusesToOverwrite(t *testing.T) {
	dir := testFolder(t)
	before := read(t, dir, "relay.key")
	_, err := Create(dir, testOptions())
	if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "relay.key") || !strings.Contains(err.Error(), "--force") {
		t.Errorf("got %v", err)
	}
	if read(t, dir, "relay.key") != before {
		t.Error("the key was replaced")
	}
	forced := testOptions()
	forced.Force = true
	if _, err := Create(dir, forced); err != nil {
		t.Fatal(err)
	}
	if read(t, dir, "relay.key") == before {
		t.Error("the key was not replaced in spite of force")
	}
}

func TestRenew(t *testing.T) {
	dir := testFolder(t)
	if _, err := Issue(dir, "amsterdam", testOptions()); err != nil {
		t.Fatal(err)
	}
	revoke(t, dir, "amsterdam")
	ca, relay, key := read(t, dir, CAFile), loadCert(t, dir, "relay.crt"), read(t, dir, "relay.key")
	if err := os.Chmod(filepath.Join(dir, "relay.key"), 0o640); err != nil {
		t.Fatal(err)
	}
	made, err := Renew(dir, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	if len(made) != 7 { // three pairs and the list
		t.Errorf("made %v", made)
	}
	if read(t, dir, CAFile) != ca || read(t, dir, "relay.key") == key {
		t.Error("want the same authority and another key")
	}
	renewed := loadCert(t, dir, "relay.crt")
	if string(renewed.RawSubject) != string(relay.RawSubject) || renewed.SerialNumber.Cmp(relay.SerialNumber) == 0 {
		t.Errorf("subject %s, serial %X", renewed.Subject, renewed.SerialNumber)
	}
	if info, err := os.Stat(filepath.Join(dir, "relay.key")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the group that could read the key cannot any more: %v, %v", info.Mode(), err)
	}
	for _, name := range []string{Dispatcher, Relay, "amsterdam"} { // a renewed one is good again
		if _, err := Open(Config{Dir: dir, Name: name, Now: testOptions().Now}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	lists, err := parseCRLs([]byte(read(t, dir, CRLFile)))
	if err != nil || len(lists) != 1 || len(lists[0].entries) != 1 || lists[0].number.Int64() != 3 {
		t.Errorf("list %+v, %v", lists, err)
	}
}

func TestRenewNeedsTheAuthority(t *testing.T) {
	dir := testFolder(t)
	if err := os.Remove(filepath.Join(dir, CAKeyFile)); err != nil {
		t.Fatal(err)
	}
	_, err := Renew(dir, testOptions())
	if !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	wantContains(t, "error", err.Error(), CAKeyFile, "only the folder in which the authority was made")
}

// A damaged list must never be replaced by one that forgets who was revoked;
// a missing one may.
func TestRenewAndDamagedList(t *testing.T) {
	dir := testFolder(t)
	write(t, dir, CRLFile, "rubbish")
	if _, err := Renew(dir, testOptions()); err == nil || !strings.Contains(err.Error(), "forget") {
		t.Errorf("renew: %v", err)
	}
	if _, _, err := Revoke(dir, Relay, testOptions()); err == nil || !strings.Contains(err.Error(), "forget") {
		t.Errorf("revoke: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, CRLFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Renew(dir, testOptions()); err != nil {
		t.Error(err)
	}
	if _, err := Open(Config{Dir: dir, Name: Relay, Now: testOptions().Now}); err != nil {
		t.Error(err)
	}
}

func TestIssueNames(t *testing.T) {
	dir := testFolder(t)
	for _, name := range []string{"", "ca", "crl", "../x", ".hidden", "relay", Dispatcher} {
		if _, err := Issue(dir, name, testOptions()); err == nil {
			t.Errorf("%q was issued", name)
		}
	}
	options := testOptions()
	options.CommonNames = map[string]string{"berlin": "Relay in Berlin"}
	if _, err := Issue(dir, "berlin", options); err != nil {
		t.Fatal(err)
	}
	if got := loadCert(t, dir, "berlin.crt").Subject.CommonName; got != "Relay in Berlin" {
		t.Errorf("got %q", got)
	}
}

func TestRevoke(t *testing.T) {
	dir := testFolder(t)
	serial := loadCert(t, dir, "relay.crt").SerialNumber
	colons := ""
	for i, c := range serial.Text(16) {
		if i > 0 && i%2 == 0 {
			colons += ":"
		}
		colons += string(c)
	}
	for _, word := range []string{
		filepath.Join(dir, "relay.crt"), "relay.crt", "relay", serial.Text(16), "0x" + serial.Text(16),
		strings.ToUpper(serial.Text(16)), colons, "serial=" + serial.Text(16),
	} {
		fresh := t.TempDir()
		if err := os.CopyFS(fresh, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		got, made, err := Revoke(fresh, word, testOptions())
		if err != nil || got != strings.ToUpper(serial.Text(16)) || made.Path != filepath.Join(fresh, CRLFile) {
			t.Errorf("%s: %s, %v, %v", word, got, made, err)
			continue
		}
		if _, err := Open(Config{Dir: fresh, Name: Relay, Now: testOptions().Now}); !errors.Is(err, ErrRevoked) {
			t.Errorf("%s: after it, the relay's certificate is: %v", word, err)
		}
		if _, _, err := Revoke(fresh, word, testOptions()); !errors.Is(err, ErrAlreadyRevoked) {
			t.Errorf("%s: revoked twice: %v", word, err)
		}
	}
}

func TestRevokeRefuses(t *testing.T) {
	dir, other := testFolder(t), testFolder(t)
	for word, want := range map[string]string{
		"no-such-file":                    "neither a certificate file nor a serial number",
		"-1f":                             "neither",
		"":                                "neither",
		"0":                               "neither",
		strings.Repeat("f", 41):           "neither",
		filepath.Join(dir, "relay.key"):   "no complete PEM block",
		filepath.Join(dir, CAFile):        "cannot revoke itself",
		filepath.Join(other, "relay.crt"): "not issued by the authority",
	} {
		before := read(t, dir, CRLFile)
		if _, _, err := Revoke(dir, word, testOptions()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", word, err, want)
		}
		if read(t, dir, CRLFile) != before {
			t.Errorf("%s: the list changed", word)
		}
	}
}

// A folder is there as a whole or not at all.
func TestCreateIsAllOrNothing(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "tls")
	broken := testOptions()
	broken.Subject.Country = []string{"\xff"} // cannot be written into a certificate
	if made, err := Create(dir, broken); err == nil || made != nil {
		t.Errorf("made %v, %v", made, err)
	}
	if entries, _ := os.ReadDir(parent); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
	if _, err := Create(dir+"/", testOptions()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
	if entries, _ := os.ReadDir(parent); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestRenewDue(t *testing.T) {
	dir := testFolder(t)
	at := func(after time.Duration) Options {
		o := testOptions()
		o.Now = func() time.Time { return testTime.Add(after) }
		return o
	}
	for _, tc := range []struct {
		after time.Duration
		files int
	}{
		{0, 0},
		{DefaultLifetime - expiryWarning - time.Hour, 0},
		{DefaultLifetime - expiryWarning, 5},
		{DefaultLifetime, 0}, // renewed above
		{3 * DefaultLifetime, 5},
	} {
		made, err := RenewDue(dir, at(tc.after))
		if err != nil || len(made) != tc.files {
			t.Errorf("after %v: %d files, want %d; %v", tc.after, len(made), tc.files, err)
		}
		if _, err := Open(Config{Dir: dir, Name: Relay, Now: at(tc.after).Now}); err != nil {
			t.Errorf("after %v: %v", tc.after, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, CAKeyFile)); err != nil {
		t.Fatal(err)
	}
	if made, err := RenewDue(dir, at(9*DefaultLifetime)); made != nil || err != nil {
		t.Errorf("somebody else's folder: %v, %v", made, err)
	}
}
