package state

import (
	"fmt"
	"log/slog"
)

// serverLog passes on what the server has to say. It tells much that is of interest to
// nobody here.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Noticef(format string, v ...any) {
	l.log.Debug("outbox: " + fmt.Sprintf(format, v...))
}
func (l serverLog) Debugf(string, ...any)         {}
func (l serverLog) Tracef(string, ...any)         {}
func (l serverLog) Warnf(format string, v ...any) { l.log.Warn("outbox: " + fmt.Sprintf(format, v...)) }
func (l serverLog) Errorf(format string, v ...any) {
	l.log.Error("outbox: " + fmt.Sprintf(format, v...))
}
func (l serverLog) Fatalf(format string, v ...any) {
	l.log.Error("outbox: " + fmt.Sprintf(format, v...))
}
