package dispatcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"example.org/mediaproxy/internal/wire/relaylink"
)

// lostFile is what a dispatcher tells the next process of calls that no relay can tell it
// of: their relay is away, or they are over and it has not reported them.
type lostFile struct {
	Version int         `json:"version"`
	Relays  []lostRelay `json:"relays"`
	Owed    []lostCall  `json:"owed"`
}

const lostFileVersion = 1

type lostRelay struct {
	Key    string     `json:"key"`
	Name   string     `json:"name"`
	Plain  bool       `json:"plain"`
	LostAt time.Time  `json:"lost_at"`
	Calls  []lostCall `json:"calls"`
}

type lostCall struct {
	relaylink.Call
	Relay  string    `json:"relay,omitempty"` // of one that is over
	End    time.Time `json:"end,omitzero"`
	HungUp bool      `json:"hung_up,omitempty"` // to be ended when its relay is back
}

func (r lostRecord) call() lostCall {
	c := lostCall{Relay: r.relay, End: r.end, Call: relaylink.Call{CallID: r.callID, FromTag: r.fromTag, ToTag: r.toTag, DialogID: r.dialogID,
		RecordID: r.record, FromURI: r.fromURI, ToURI: r.toURI, Username: r.username}}
	if !r.start.IsZero() {
		c.StartTime = float64(r.start.UnixMicro()) / 1e6
	}
	return c
}

// keepLostShare bounds the time that goes into the file: a long one is written less often.
const keepLostShare = 20

// keepLostSoon writes the file, unless it took so long the last time that it has to wait.
func (d *Dispatcher) keepLostSoon() {
	began := time.Now()
	if began.Before(d.nextKeepLost) {
		return
	}
	d.keepLost()
	d.nextKeepLost = began.Add(keepLostShare * time.Since(began))
}

// keepLost writes the file anew if it would say something else, and says whether the next
// process will know. The caller is the only one.
func (d *Dispatcher) keepLost() bool {
	if d.cfg.LostCallsFile == "" {
		return false
	}
	away, sum := d.registry.away()
	d.owed.mu.Lock()
	sum.owed = len(d.owed.byRecord)
	d.owed.mu.Unlock()
	if sum == d.keptLost {
		return true
	}
	text, err := json.Marshal(d.lostNow(away))
	if err == nil {
		err = replaceFile(d.cfg.LostCallsFile, text)
	}
	if err == nil {
		d.keptLost, d.lostFileBad = sum, false
		return true
	}
	if !d.lostFileBad {
		d.log.Error("calls whose relay is away would be forgotten by a restart; room on the disk and the right to write are needed", "error", err)
	}
	d.lostFileBad = true
	return false
}

// lostNow is what the file should say.
func (d *Dispatcher) lostNow(away map[*relayState]*lostRelay) lostFile {
	f := lostFile{Version: lostFileVersion}
	d.owed.mu.Lock()
	for _, o := range d.owed.byRecord {
		f.Owed = append(f.Owed, o.call())
	}
	d.owed.mu.Unlock()
	for r, file := range away {
		for some := range slices.Chunk(d.calls.of(r, func(*callState) bool { return true }), lostAtOnce) {
			file.Calls = d.calls.appendLost(file.Calls, r, some)
		}
		f.Relays = append(f.Relays, *file)
	}
	return f
}

// lostAtOnce is how many calls are copied before others have the table again.
const lostAtOnce = 1000

func (t *callTable) appendLost(list []lostCall, r *relayState, calls []*callState) []lostCall {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range calls {
		if c.relay == r && c.expired.IsZero() && c.placing == nil {
			left := c.lostRecordLocked().call()
			left.Relay, left.HungUp = "", c.hungUp
			list = append(list, left)
		}
	}
	return list
}

// lostSum is enough to see that the file has to change: nothing is added to a relay that
// is away.
type lostSum struct {
	relays, owed int
	calls        int64
	since        time.Time // the latest loss
}

// away returns the relays that are not connected and have calls.
func (g *registry) away() (map[*relayState]*lostRelay, lostSum) {
	g.mu.Lock()
	defer g.mu.Unlock()
	list, sum := map[*relayState]*lostRelay{}, lostSum{}
	for key, r := range g.relays {
		n := r.calls.Load()
		if r.link != nil || n == 0 {
			continue
		}
		list[r] = &lostRelay{Key: key, Name: r.name, Plain: r.plain, LostAt: r.lostAt}
		sum.relays++
		sum.calls += n
		if r.lostAt.After(sum.since) {
			sum.since = r.lostAt
		}
	}
	return list, sum
}

// replaceFile writes a file so that there is the old text or the new one, whatever happens.
func replaceFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// recallLost reads what the former process knew.
func (d *Dispatcher) recallLost() error {
	if d.cfg.LostCallsFile == "" {
		return nil
	}
	text, err := os.ReadFile(d.cfg.LostCallsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var f lostFile
	if err := json.Unmarshal(text, &f); err != nil {
		return fmt.Errorf("it cannot be read, and is left under its name with .bad: %w", errors.Join(err, os.Rename(d.cfg.LostCallsFile, d.cfg.LostCallsFile+".bad")))
	}
	if f.Version != lostFileVersion {
		return fmt.Errorf("it has version %d, this program knows %d", f.Version, lostFileVersion)
	}
	for _, c := range f.Owed {
		left := lostRecord{account: accountOf(c.Call), callID: c.CallID, fromTag: c.FromTag, toTag: c.ToTag, dialogID: c.DialogID, relay: c.Relay}
		d.owe(left, c.End)
	}
	calls := 0
	d.calls.mu.Lock()
	defer d.calls.mu.Unlock()
	for _, away := range f.Relays {
		r := &relayState{key: away.Key, name: away.Name, plain: away.Plain, lostAt: away.LostAt}
		d.registry.relays[away.Key] = r // nobody else has the registry yet
		for _, c := range away.Calls {
			state := &callState{id: c.CallID, fromTag: c.FromTag, toTag: c.ToTag, dialogID: c.DialogID, hungUp: c.HungUp, account: accountOf(c.Call)}
			d.calls.addLocked(state)
			state.setRelayLocked(r)
			calls++
		}
	}
	d.log.Info("calls of relays that were away are remembered", "calls", calls, "relays", len(f.Relays), "over", len(f.Owed))
	return nil
}
