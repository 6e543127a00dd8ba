package database

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A server that is gone is an error at once, one that hangs an error soon, and both work
// again by themselves.
func away(t *testing.T, l *lab) {
	if l.server == nil {
		locked(t, l)
		return
	}
	uri := l.database(t)
	db, late := open(t, uri, plain, nil), open(t, uri, plain, nil)
	must(t, db.Store(t.Context(), []Row{row("r1")}))
	l.server.Kill()
	for _, d := range []*DB{db, late} {
		refusal(t, d.Store(soon(t), []Row{row("r2")}), "127.0.0.1", "is the server running")
	}
	l.server.Start()
	must(t, db.Store(t.Context(), []Row{row("r2")}))
	l.server.Freeze()
	var wg sync.WaitGroup
	for _, d := range []*DB{db, late} {
		wg.Go(func() {
			begin := time.Now()
			err := d.Store(soon(t), []Row{row("r3")})
			if took := time.Since(begin); took > workTime+2*time.Second || err == nil || !strings.Contains(err.Error(), "does not answer in time") {
				t.Errorf("after %v: %v", took, err)
			}
		})
	}
	wg.Wait()
	l.server.Thaw()
	for _, d := range []*DB{db, late} { // the outbox would try again
		for deadline := time.Now().Add(20 * time.Second); d.Store(t.Context(), []Row{row("r3")}) != nil; {
			if time.Now().After(deadline) {
				t.Fatal("it does not work again")
			}
		}
	}
	if diff := cmp.Diff([]Row{row("r1"), row("r2"), row("r3")}, read(t, db)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// locked: another program writes to the file for ever.
func locked(t *testing.T, l *lab) {
	uri := l.database(t)
	db, holder := open(t, uri, plain, nil), open(t, uri, plain, nil)
	must(t, db.Store(t.Context(), []Row{row("r1")}))
	tx, err := holder.sql.BeginTx(t.Context(), nil)
	must(t, err)
	begin := time.Now()
	refusal(t, db.Store(soon(t), []Row{row("r2")}), "locked")
	if took := time.Since(begin); took > workTime+2*time.Second {
		t.Errorf("it took %v", took)
	}
	must(t, errors.Join(tx.Rollback(), db.Store(t.Context(), []Row{row("r2")})))
	if info, err := os.Stat(db.uri.Name); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("%v, %v", info, err)
	}
}
