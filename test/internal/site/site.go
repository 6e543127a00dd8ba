package site

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/mediaproxy/internal/pki"
)

// Patience is how long tests wait for something that must happen.
const Patience = 10 * time.Second

// Eventually waits for a condition.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain: %s", Patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Site is a certificate folder and a clock that dispatchers and relays share.
type Site struct {
	Clock *Clock
	Certs string // the certificate folder

	t    testing.TB
	dir  string // short, because paths of UNIX sockets have to be
	opts Options
}

// Options of a site.
type Options struct {
	// Plain makes the relays speak the protocol of the original.
	Plain bool
}

// New makes the certificates. Everything ends with the test.
func New(t testing.TB, opts Options) *Site {
	t.Helper()
	dir, err := os.MkdirTemp("", "mps")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.RemoveAll(dir)
		// What relays that were killed, or keep their calls, left in the kernel.
		name := strings.NewReplacer("/", "_", ".", "_", "-", "_").Replace(strings.Trim(dir, "/"))
		left, _ := filepath.Glob("/sys/fs/bpf/mediaproxy/" + name + "_*") // the pattern is a good one
		for _, folder := range left {
			os.RemoveAll(folder)
		}
	})
	s := &Site{t: t, dir: dir, opts: opts, Certs: filepath.Join(dir, "tls"), Clock: &Clock{}}
	if _, err := pki.Create(s.Certs, pki.Options{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// Store opens one of the pairs of the certificate folder.
func (s *Site) Store(pair string) *pki.Store {
	s.t.Helper()
	store, err := pki.Open(pki.Config{Dir: s.Certs, Name: pair})
	if err != nil {
		s.t.Fatal(err)
	}
	return store
}

// Clock is the time of a site: the real one, set forward by tests.
type Clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

// Now is the site's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

// Advance sets the time forward.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// Log is what a program wrote.
type Log struct {
	mu   sync.Mutex // guards what follows
	text strings.Builder
}

func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Has says whether one line has all of these words in it.
func (l *Log) Has(words ...string) bool { return l.Count(words...) > 0 }

// Count is the number of lines that have all of these words in them.
func (l *Log) Count(words ...string) (n int) {
	for line := range strings.Lines(l.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			n++
		}
	}
	return n
}

// Await waits for a line with all of these words.
func (l *Log) Await(t testing.TB, words ...string) {
	t.Helper()
	Eventually(t, "a log line with "+strings.Join(words, " … "), func() bool { return l.Has(words...) })
}

// printed puts the end of a log into a failed test's output.
func (l *Log) printed(t testing.TB, name string) {
	if !t.Failed() {
		return
	}
	all := strings.SplitAfter(l.String(), "\n")
	t.Logf("log of %s:\n%s", name, strings.Join(all[max(0, len(all)-60):], ""))
}
