package program

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"example.org/mediaproxy/internal/journal"
	"example.org/mediaproxy/internal/session"
)

// kept is where a relay's calls wait for the next process. Without a Log they do not.
type kept struct{ *journal.Log }

// leaving is how long the former process may take to be gone.
const leaving = 2 * time.Second

// openJournal opens the relay's journal, before anything is taken over from the former
// process: its lock says that it has ended. A relay that cannot have a journal relays all
// the same: calls of now matter more than those of after a restart.
func (h *host) openJournal() (kept, error) {
	path := filepath.Join(h.stateDir, "relay")
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		log, err := journal.Open(path, journal.Options{Log: h.log})
		switch {
		case err == nil:
			return kept{log}, nil
		case !errors.Is(err, journal.ErrInUse):
			h.log.Error("calls of this relay will end with its process, and those of the one before are not taken over", "error", err,
				"hint", "state_dir in section [Relay] names a folder that this user may write to")
			return kept{}, nil
		case time.Since(began) > leaving:
			return kept{}, fmt.Errorf("this relay runs already, stop that one first: %w", err)
		}
	}
}

// config is that of the table of calls.
func (k kept) config(relay string) session.Config {
	c := session.Config{Relay: relay, Boot: bootID()}
	if k.Log != nil {
		c.Keeper = k.Log
	}
	return c
}

// restore takes the calls of the former process over. It returns the finished ones that
// still have to be reported. Also without a journal the packets of the former process
// come to an end here.
func (k kept) restore(calls *session.Table, log *slog.Logger) (reports []session.Finished) {
	began := time.Now()
	if k.Log != nil {
		k.Each(func(id string, record []byte) {
			if f, ended := calls.Restore(id, record); ended {
				reports = append(reports, f)
			}
		})
	}
	orphans := calls.Resume()
	log.Info("calls of the former process are taken over", "sessions", calls.Len(), "unacknowledged_reports", len(reports),
		"ports_without_a_call", orphans, "took", time.Since(began).Round(time.Microsecond))
	return reports
}

func (k kept) close() error {
	if k.Log == nil {
		return nil
	}
	return k.Close()
}

// bootID names this run of the host. Where there is none, times of before a restart of the
// host are told by their being in the future.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
