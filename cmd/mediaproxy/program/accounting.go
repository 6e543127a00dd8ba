package program

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"example.org/mediaproxy/internal/accounting"
	"example.org/mediaproxy/internal/config"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/state"
)

// books are where the dispatcher's finished calls go. Without back-ends they go to its log
// alone.
type books struct {
	outbox     *state.Outbox // on this host
	accounting *accounting.Accounting
}

func (h *host) openAccounting(others *cluster) (b books, err error) {
	names := h.cfg.Dispatcher.Backends()
	if len(names) == 0 {
		return b, nil
	}
	backends, err := accounting.Open(names, withPaths(h.cfg, h.dirs), h.log)
	if err != nil {
		return b, err
	}
	dir := filepath.Join(h.stateDir, "outbox")
	if b.outbox, err = state.Open(state.Config{Dir: dir}, h.log); err != nil {
		return b, fmt.Errorf("%w (state_dir in section [Dispatcher] names a folder that this user may write to)", err)
	}
	if others == nil {
		b.accounting = accounting.New(backends, b.outbox, h.log)
	} else {
		b.accounting = accounting.New(backends, others.Outboxes(b.outbox), h.log)
	}
	return b, nil
}

// withPaths is a configuration in which the paths that back-ends read are found.
func withPaths(cfg *config.Config, dirs config.Dirs) *config.Config {
	c := *cfg
	c.Radius.ConfigFile = dirs.Find(c.Radius.ConfigFile)
	c.Radius.AdditionalDictionary = dirs.Find(c.Radius.AdditionalDictionary)
	return &c
}

func (b books) finished(s report.Session) error {
	if b.accounting == nil {
		return nil
	}
	return b.accounting.Finished(s)
}

// statusTime bounds looking at the queues.
const statusTime = 5 * time.Second

func (b books) status() ([]report.Backend, error) {
	if b.accounting == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusTime)
	defer cancel()
	return b.accounting.Status(ctx)
}

func (b books) close() error {
	if b.accounting == nil {
		return nil
	}
	return errors.Join(b.accounting.Close(), b.outbox.Close())
}
