package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
)

const (
	retryEvery   = time.Second      // how often a disk that takes nothing is tried again
	compactAgain = 30 * time.Second // after a compaction that failed
	maxSegments  = 8                // files that failed compactions may leave
	batch        = 64 << 10         // bytes that a compaction copies before a Put gets its turn

	// A Put may have to wait for a sync that runs: the file system is at it. So no more
	// than one part in syncShare of the time is given to that, on a slow disk too.
	syncShare    = 50
	longestPause = time.Second
)

// trouble is what a failing disk leaves behind.
type trouble struct {
	err     error             // why nothing can be written; nil: all is well
	waiting map[string][]byte // the latest of each key that could not be written; nil: deleted
	bytes   int64             // of waiting
	lost    uint64            // records dropped because too much waited
	told    uint64            // of them: said in the log

	// suspect: a sync failed. The kernel forgets what it could not write, so what is on
	// disk has to be written again, by a compaction.
	suspect bool
	target  *segment  // of a compaction that failed and can go on; nil: none
	pause   time.Time // no compaction before
	grieved bool      // its failure is in the log
}

// run syncs, compacts and retries until Close.
func (l *Log) run() {
	defer close(l.ended)
	tick := time.NewTicker(l.opts.SyncEvery)
	defer tick.Stop()
	var retried, rested time.Time
	for {
		select {
		case <-l.stop:
			return
		case <-l.wake:
		case now := <-tick.C:
			if now.Sub(retried) >= retryEvery {
				retried = now
				l.retry()
			}
			if !now.Before(rested) {
				rested = l.syncInTurn()
			}
		}
		l.compactIfWanted()
	}
}

// syncInTurn syncs and returns when to do so again.
func (l *Log) syncInTurn() time.Time {
	began := time.Now()
	_ = l.sync() // says itself what is wrong
	ended := time.Now()
	return ended.Add(min(syncShare*ended.Sub(began), longestPause))
}

// sync makes what was written outlive the machine.
func (l *Log) sync() error {
	l.mu.Lock()
	s, wanted, fresh := l.active, l.unsynced, l.fresh
	l.unsynced, l.fresh = false, false
	l.mu.Unlock()
	if !wanted || s == nil {
		return nil
	}
	if err := l.syncSegment(s); err != nil || !fresh {
		return err
	}
	if err := l.files.sync(); err != nil {
		return l.doubt(err)
	}
	return nil
}

// syncSegment does so for one file. Only the goroutine of run, or Close behind it, closes
// files.
func (l *Log) syncSegment(s *segment) error {
	if err := s.sync(); err != nil {
		return l.doubt(err)
	}
	return nil
}

// doubt notes that a sync failed.
func (l *Log) doubt(err error) error {
	err = fmt.Errorf("sync the journal: %w", err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.trouble.suspect {
		l.opts.Log.Error("the journal may not outlive a crash of this machine, and is written anew; check the disk", "folder", l.where, "error", err)
	}
	l.trouble.suspect = true
	l.trouble.target = nil // a file of which something is missing is no place to copy to
	return err
}

// fail notes that the disk takes nothing, and says so once.
func (l *Log) fail(err error) {
	if l.trouble.err == nil {
		l.opts.Log.Error("the journal cannot be written: calls go on, but would not survive the end of this process as they are now; free space, or repair the disk",
			"folder", l.where, "error", err)
	}
	l.trouble.err = err
}

// hold keeps a record that the disk did not take.
func (l *Log) hold(op operation, key string, value []byte) {
	t := &l.trouble
	if old, ok := t.waiting[key]; ok {
		t.bytes -= int64(len(key) + len(old))
		delete(t.waiting, key)
	}
	size := int64(len(key) + len(value))
	if t.bytes+size > l.opts.MaxWaiting {
		t.lost++
		return
	}
	if t.waiting == nil {
		t.waiting = map[string][]byte{}
	}
	t.bytes += size
	if op == opDelete {
		t.waiting[key] = nil
		return
	}
	t.waiting[key] = append(make([]byte, 0, len(value)), value...)
}

// retry writes what waits, if the disk is in trouble and takes it now.
func (l *Log) retry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &l.trouble
	if t.err == nil {
		return
	}
	before := len(t.waiting)
	for key, value := range t.waiting {
		op := opPut
		if value == nil {
			op = opDelete
		}
		if err := l.append(op, key, value); err != nil {
			t.err = err
			return
		}
		t.bytes -= int64(len(key) + len(value))
		delete(t.waiting, key)
	}
	t.err = nil
	l.opts.Log.Info("the journal is written again", "folder", l.where, "records_that_waited", before)
	if lost := t.lost - t.told; lost > 0 {
		l.opts.Log.Error("records were lost while the journal could not be written: too many waited", "folder", l.where, "lost", lost, "limit_bytes", l.opts.MaxWaiting)
		t.told = t.lost
	}
}

// wantsCompaction says whether there is more than one file, or one that is mostly dead.
func (l *Log) wantsCompaction() bool {
	if l.active == nil || l.trouble.err != nil || len(l.segments) > maxSegments {
		return false
	}
	dead := l.sizes.dead()
	return l.trouble.suspect || len(l.segments) > 1 || dead > l.sizes.live && dead > l.opts.CompactAfter
}

func (l *Log) compactIfWanted() {
	l.mu.Lock()
	wanted := l.wantsCompaction() && !time.Now().Before(l.trouble.pause)
	l.mu.Unlock()
	if !wanted {
		return
	}
	err := l.compact()
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &l.trouble
	if err == nil {
		if t.suspect || t.grieved {
			l.opts.Log.Info("the journal was written anew and is whole", "folder", l.where)
		}
		t.suspect, t.grieved, t.target = false, false, nil
		return
	}
	if !t.grieved {
		l.opts.Log.Error("the journal cannot be cleared of what is dead and grows; free space, or repair the disk", "folder", l.where, "error", err)
	}
	t.grieved, t.pause = true, time.Now().Add(compactAgain)
}

// compact copies what is alive into a new segment and removes the others. Puts go to
// the new one from the beginning and wait for one batch at most.
func (l *Log) compact() error {
	next, old, keys, err := l.beginCompaction()
	if err != nil {
		return err
	}
	for len(keys) > 0 {
		if keys, err = l.move(keys, next); err != nil {
			return err
		}
	}
	// The old ones go only when the new one, and its name, are sure to be there.
	if err := l.syncSegment(next); err != nil {
		return err
	}
	if err := l.files.sync(); err != nil {
		return l.doubt(err)
	}
	return l.drop(old, next)
}

// beginCompaction makes the new segment, or takes that of an earlier attempt.
func (l *Log) beginCompaction() (next *segment, old []*segment, keys []string, err error) {
	l.mu.Lock()
	next, number, previous := l.trouble.target, l.number+1, l.active
	l.mu.Unlock()
	if next == nil {
		if next, err = createSegment(l.files, number); err != nil {
			return nil, nil, nil, err
		}
	}
	l.mu.Lock()
	if l.active != next {
		l.use(next)
	}
	l.trouble.target = next
	old = l.segments[: len(l.segments)-1 : len(l.segments)-1]
	keys = make([]string, 0, len(l.index))
	for key, at := range l.index {
		if at.segment != next {
			keys = append(keys, key)
		}
	}
	l.mu.Unlock()
	if previous != next {
		_ = l.syncSegment(previous) // or its end would be less safe than before
	}
	return next, old, keys, nil
}

// move copies one batch of records and returns the keys that are left.
func (l *Log) move(keys []string, next *segment) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for copied := 0; len(keys) > 0 && copied < batch; keys = keys[1:] {
		key := keys[0]
		at, ok := l.index[key]
		if !ok || at.segment == next {
			continue // deleted or written anew meanwhile
		}
		value, err := at.read()
		if err != nil {
			l.unreadable(key, at, err)
			continue
		}
		if err := l.append(opPut, key, value); err != nil {
			return nil, err
		}
		copied += int(at.size)
	}
	return keys, nil
}

// drop removes segments of which nothing counts any more, the oldest first: a deletion
// must not go before what it deletes.
func (l *Log) drop(old []*segment, next *segment) error {
	for _, s := range old {
		if err := l.files.remove(s.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove an old part of the journal: %w", err)
		}
		l.mu.Lock()
		l.segments = l.segments[1:]
		l.mu.Unlock()
		err := errors.Join(s.Close(), l.files.sync())
		if err != nil {
			return fmt.Errorf("remove an old part of the journal: %w", err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sizes.total = next.end - headerSize
	return nil
}
