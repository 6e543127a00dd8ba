package pki

import (
	"bytes"
	"crypto/x509/pkix"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTime is when the tests happen, unless they move it.
var testTime = time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func testOptions() Options {
	return Options{
		Subject: pkix.Name{Organization: []string{"Phones, Inc"}, Country: []string{"NL"}},
		Email:   "ops@example.com",
		Now:     func() time.Time { return testTime },
	}
}

// testFolder makes a certificate folder as Create does.
func testFolder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := Create(dir, testOptions()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func revoke(t testing.TB, dir, name string) {
	t.Helper()
	if _, _, err := Revoke(dir, name, testOptions()); err != nil {
		t.Fatal(err)
	}
}

func passport(t testing.TB, s string) Passport {
	t.Helper()
	p, err := ParsePassport(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// logBuffer collects the lines of a text log.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// take returns what was logged since the last call.
func (b *logBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.buf.Reset()
	return b.buf.String()
}

func wantContains(t testing.TB, what, got string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(got, want) {
			t.Errorf("%s: no %q in\n%s", what, want, got)
		}
	}
}

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func copyFile(t testing.TB, fromDir, from, toDir, to string) {
	t.Helper()
	write(t, toDir, to, read(t, fromDir, from))
}
