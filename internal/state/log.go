package state

import (
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"
)

// serverLog passes on what a server has to say. It tells much that is of interest to
// nobody here, and repeats each second what does not work.
type serverLog struct {
	log  *slog.Logger
	what string

	mu   *sync.Mutex // guards said
	said map[string]time.Time
}

func newServerLog(log *slog.Logger, what string) serverLog {
	return serverLog{log, what, new(sync.Mutex), map[string]time.Time{}}
}

// sayAgain is after how long the same trouble is said once more.
const sayAgain = time.Minute

// unverified is said of routes because the server does not look into the TLS configuration
// that it is given, which verifies every certificate.
const unverified = "hostname of solicited routes will not be verified"

// numbers are those of connections, which formats have in them.
var numbers = regexp.MustCompile("[0-9]+")

// due says whether a message is not a mere repetition.
func (l serverLog) due(format string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	kind := numbers.ReplaceAllString(format, "#")
	if strings.Contains(format, unverified) || now.Sub(l.said[kind]) < sayAgain {
		return false
	}
	l.said[kind] = now
	return true
}

func (l serverLog) text(format string, v []any) string {
	return l.what + ": " + fmt.Sprintf(format, v...)
}

func (l serverLog) Noticef(format string, v ...any) { l.log.Debug(l.text(format, v)) }
func (l serverLog) Debugf(string, ...any)           {}
func (l serverLog) Tracef(string, ...any)           {}

func (l serverLog) Warnf(format string, v ...any) {
	if l.due(format) {
		l.log.Warn(l.text(format, v))
	}
}

func (l serverLog) Errorf(format string, v ...any) {
	if l.due(format) {
		l.log.Error(l.text(format, v))
	}
}

func (l serverLog) Fatalf(format string, v ...any) { l.log.Error(l.text(format, v)) }
