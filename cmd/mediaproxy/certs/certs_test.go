package certs

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/pki"
)

var testTime = time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)

// run runs the command; what differs from run to run is replaced.
func run(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := command(func() time.Time { return testTime })
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	text := strings.ReplaceAll(out.String(), dir, "DIR")
	return regexp.MustCompile(`serial [0-9A-F]{20,32}`).ReplaceAllString(text, "serial SERIAL"), err
}

func open(dir, name string) (*pki.Store, error) {
	return pki.Open(pki.Config{Dir: dir, Name: name, Now: func() time.Time { return testTime }})
}

const wantCreate = `Made a new set of certificates in DIR:

  ca.pem          CN=MediaProxy authority,O=Phones  valid until 2055-05-26  serial SERIAL
  ca.key          secret
  dispatcher.crt  CN=MediaProxy dispatcher,O=Phones  valid until 2030-07-01  serial SERIAL
  dispatcher.key  secret
  relay.crt       CN=Our relay,O=Phones  valid until 2030-07-01  serial SERIAL
  relay.key       secret
  crl.pem         revoked certificates  valid until 2030-07-01

Copy into the certificate folder ([TLS] certs_path, by default /etc/mediaproxy/tls)
  of the dispatcher:  ca.pem crl.pem dispatcher.crt dispatcher.key
  of each relay:      ca.pem crl.pem relay.crt relay.key
and make each .key file readable for the user of the program, and for nobody
else: chown mediaproxy dispatcher.key, for example.

Keep ca.key here: whoever has it can make certificates that all others trust.
`

func TestCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	got, err := run(t, dir, dir, "--organization", "Phones", "--relay-cn", "Our relay", "--days", "30")
	if err != nil {
		t.Fatal(err)
	}
	if got != wantCreate {
		t.Errorf("got\n%s\nwant\n%s", got, wantCreate)
	}
	if _, err := run(t, dir, dir); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("made over an existing set: %v", err)
	}
	if _, err := run(t, dir, dir, "--force"); err != nil {
		t.Error(err)
	}
	if _, err := open(dir, pki.Relay); err != nil {
		t.Error(err)
	}
}

func TestIssueRenewRevoke(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	steps := []struct {
		args []string
		want []string
	}{
		{[]string{dir}, []string{"Made a new set"}},
		{[]string{"issue", dir, "berlin", "--unit", "Relays", "--country", "DE", "--email", "ops@example.com"},
			[]string{"berlin.crt  ", "CN=berlin", "OU=Relays", "C=DE", "berlin.key as relay.key", "--pair berlin summary"}},
		{[]string{"issue", dir, "anna", "--cn", "Anna Operator"}, []string{"CN=Anna Operator"}},
		{[]string{"revoke", dir, "berlin"}, []string{"Revoked the certificate with serial SERIAL", "\n  DIR/crl.pem\n"}},
		{[]string{"revoke", dir, "berlin"}, []string{"already revoked", "nothing to do"}},
		{[]string{"renew", dir}, []string{"Renewed in DIR; the authority is the same", "berlin.crt", "dispatcher.key", "crl.pem"}},
	}
	for _, step := range steps {
		got, err := run(t, dir, step.args...)
		if err != nil {
			t.Fatalf("%v: %v", step.args, err)
		}
		for _, want := range step.want {
			if !strings.Contains(got, want) {
				t.Errorf("%v: no %q in\n%s", step.args, want, got)
			}
		}
		if strings.Contains(strings.Join(step.args, " "), "revoke") {
			if _, err := open(dir, "berlin"); err == nil || !strings.Contains(err.Error(), "revoked") {
				t.Errorf("%v: then berlin is: %v", step.args, err)
			}
		}
	}
	for _, name := range []string{pki.Dispatcher, pki.Relay, "berlin", "anna"} {
		if _, err := open(dir, name); err != nil {
			t.Errorf("%s after renewing: %v", name, err)
		}
	}
}

func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "DIR wanted, got"},
		{[]string{dir, "more"}, 2, "DIR wanted, got"},
		{[]string{"issue", dir}, 2, "DIR and NAME wanted, got 1 words; more: mediaproxy certs issue --help"},
		{[]string{"revoke", dir}, 2, "DIR and FILE|SERIAL wanted"},
		{[]string{"renew"}, 2, "DIR wanted, got 0"},
		{[]string{dir, "--days", "0"}, 2, "--days 0"},
		{[]string{dir, "--country", "Germany"}, 2, "not two letters"},
		{[]string{dir, "--frobnicate"}, 2, "unknown flag"},
		{[]string{"renew", dir}, 0, "ca.pem: there is no such file"},
		{[]string{"issue", dir, "x"}, 0, "ca.pem: there is no such file"},
		{[]string{"revoke", dir, "x"}, 0, "mediaproxy certs DIR"},
	} {
		_, err := run(t, dir, tc.args...)
		if err == nil {
			t.Errorf("%v: no error", tc.args)
			continue
		}
		if text := strings.ReplaceAll(err.Error(), dir, "DIR"); !strings.Contains(text, tc.want) {
			t.Errorf("%v: got %q, want %q", tc.args, text, tc.want)
		}
		code := 0
		if coded, ok := err.(interface{ ExitCode() int }); ok {
			code = coded.ExitCode()
		}
		if code != tc.code {
			t.Errorf("%v: exit code %d, want %d", tc.args, code, tc.code)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("mistakes left files: %v", entries)
	}
}
