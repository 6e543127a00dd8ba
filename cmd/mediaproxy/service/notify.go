package service

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready tells systemd, if it started this program, that its sockets are open. The
// status is shown by `systemctl status`.
func Ready(status string) error {
	return notify(daemon.SdNotifyReady + "\nSTATUS=" + status)
}

// Stopping tells systemd that the program ends because it was asked to.
func Stopping() error { return notify(daemon.SdNotifyStopping) }

// Status changes what `systemctl status` shows.
func Status(status string) error { return notify("STATUS=" + status) }

func notify(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// Watchdog tells systemd, if it asked for that, that the program is alive, until the
// context ends. alive is called before each message: one that hangs stops the
// messages, and systemd restarts the program.
func Watchdog(ctx context.Context, log *slog.Logger, alive func()) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog that systemd asks for cannot be served", "error", err)
		return
	}
	if limit == 0 {
		return
	}
	tick := time.NewTicker(limit / 3) // two may be late before systemd acts
	defer tick.Stop()
	for {
		alive()
		if err := notify(daemon.SdNotifyWatchdog); err != nil {
			log.Warn("the watchdog was not told", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
