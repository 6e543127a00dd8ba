package journal

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

var (
	// ErrInUse: another process has the folder.
	ErrInUse = errors.New("journal in use")
	// ErrNewer: a later version of this program wrote the journal.
	ErrNewer = errors.New("journal of a newer version")
)

// Options of a Log. Zero values mean the defaults.
type Options struct {
	Log *slog.Logger // default: nothing is logged

	SyncEvery time.Duration // default 100 ms; a slow disk is asked less often, once a second
	// CompactAfter is how many dead bytes there are at least before a compaction,
	// default 16 MiB.
	CompactAfter int64
	// MaxWaiting is how many bytes of records are kept while the disk takes none,
	// default 64 MiB.
	MaxWaiting int64
}

func (o *Options) setDefaults() {
	o.SyncEvery = cmp.Or(max(o.SyncEvery, 0), 100*time.Millisecond)
	o.CompactAfter = cmp.Or(max(o.CompactAfter, 0), 16<<20)
	o.MaxWaiting = cmp.Or(max(o.MaxWaiting, 0), 64<<20)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Log is an open journal. Its methods may be called from anywhere.
type Log struct {
	// set in Open, read-only afterwards
	opts   Options
	where  string
	files  storage
	unlock func() error
	stop   chan struct{} // closed by Close
	wake   chan struct{} // capacity 1: there is something to do before the next sync
	ended  chan struct{} // closed when the goroutine has ended

	mu       sync.Mutex       // guards what follows; held for one write(2), never for a sync
	index    map[string]place // of every live record on disk
	segments []*segment       // the oldest first
	active   *segment         // the last of segments; nil: the next write makes one
	number   uint64           // of the newest segment
	buffer   []byte           // for the next frame
	unsynced bool
	fresh    bool // the name of active may not outlive the machine yet
	sizes    sizes
	trouble  trouble
	closed   bool
}

// place is where a record stands.
type place struct {
	segment *segment
	offset  int64
	size    int32 // of its frame
}

// sizes are bytes of frames in all segments.
type sizes struct{ live, total int64 }

func (s sizes) dead() int64 { return s.total - s.live }

// Stats of a Log.
type Stats struct {
	Records  int   // live, on disk
	Live     int64 // bytes of them
	Dead     int64 // bytes that only a compaction takes away
	Segments int
	Waiting  int    // records that the disk did not take yet
	Lost     uint64 // records that were dropped while it took none
	Failing  error  // why nothing can be written; nil: all is well
}

// Open reads the journal of a folder, which it makes if need be, and makes this
// process the only one that uses it. Damage is logged and does not keep it from
// opening.
func Open(path string, opts Options) (*Log, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the journal's folder: %w", err)
	}
	unlock, err := lockFolder(path)
	if err != nil {
		return nil, err
	}
	l, err := open(folder(path), path, opts)
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	l.unlock = unlock
	return l, nil
}

// open does so with a storage that nobody else uses.
func open(files storage, where string, opts Options) (*Log, error) {
	opts.setDefaults()
	l := &Log{opts: opts, where: where, files: files, unlock: func() error { return nil },
		stop: make(chan struct{}), wake: make(chan struct{}, 1), ended: make(chan struct{}), index: map[string]place{}}
	if err := l.load(); err != nil {
		l.closeSegments(l.segments)
		return nil, fmt.Errorf("read the journal in %s: %w", where, err)
	}
	go l.run() // ended says that it has returned; Close waits for that
	return l, nil
}

// Put makes value the latest one of key. When it returns, the record outlives this
// process, unless the disk is in trouble: see Stats.
func (l *Log) Put(key string, value []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(key)+len(value) > maxPayload/2 {
		l.opts.Log.Error("a record is too large for the journal and is not kept; please report this", "folder", l.where, "bytes", len(value))
		l.trouble.lost++
		return
	}
	l.write(opPut, key, value)
}

// Delete forgets a key. A key that is not there is fine.
func (l *Log) Delete(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, stored := l.index[key]
	if _, waits := l.trouble.waiting[key]; stored || waits {
		l.write(opDelete, key, nil)
	}
}

// write appends a record, or keeps it until the disk takes it.
func (l *Log) write(op operation, key string, value []byte) {
	if l.closed {
		return
	}
	err := l.trouble.err
	if err == nil {
		if err = l.append(op, key, value); err == nil {
			if l.wantsCompaction() {
				l.wakeUp()
			}
			return
		}
		l.fail(err)
	}
	l.hold(op, key, value)
}

// append writes one frame and takes note of it. On an error nothing has changed but
// bytes behind the end, which the next frame overwrites.
func (l *Log) append(op operation, key string, value []byte) error {
	if l.active == nil {
		s, err := createSegment(l.files, l.number+1)
		if err != nil {
			return err
		}
		l.use(s)
	}
	s := l.active
	l.buffer = appendFrame(l.buffer[:0], s.seed, s.end, op, key, value)
	if _, err := s.WriteAt(l.buffer, s.end); err != nil {
		_ = s.Truncate(s.end) // if this fails too, a reader steps over what is there
		return fmt.Errorf("write to the journal: %w", err)
	}
	l.unsynced = true
	l.note(op, key, s, s.end, len(l.buffer))
	s.end += int64(len(l.buffer))
	if cap(l.buffer) > 1<<20 {
		l.buffer = nil
	}
	return nil
}

// use makes s the segment that is written to.
func (l *Log) use(s *segment) {
	l.number, l.active, l.fresh = s.number, s, true
	l.segments = append(l.segments, s)
}

// note keeps the index: what key had before is dead.
func (l *Log) note(op operation, key string, s *segment, offset int64, size int) {
	if old, ok := l.index[key]; ok {
		l.sizes.live -= int64(old.size)
		delete(l.index, key)
	}
	l.sizes.total += int64(size)
	if op == opPut {
		l.sizes.live += int64(size)
		l.index[key] = place{s, offset, int32(size)}
	}
}

// Each calls do for every live record, in the order of their places on disk. It is meant
// for the start: what is put meanwhile may be missing, and so is what waits because of a
// failing disk. do may put and delete.
func (l *Log) Each(do func(key string, value []byte)) {
	l.mu.Lock()
	keys := l.keys()
	l.mu.Unlock()
	for _, key := range keys {
		if value, ok := l.get(key); ok {
			do(key, value)
		}
	}
}

func (l *Log) get(key string) (value []byte, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.index[key]
	if !ok {
		return nil, false
	}
	value, err := at.read()
	if err != nil {
		l.unreadable(key, at, err)
		return nil, false
	}
	return value, true
}

// unreadable gives up a record that was whole when the journal was opened.
func (l *Log) unreadable(key string, at place, err error) {
	l.opts.Log.Error("a record of the journal cannot be read any more and is lost", "folder", l.where, "error", err)
	l.trouble.lost++
	l.sizes.live -= int64(at.size)
	delete(l.index, key)
}

// keys returns those of live records in the order of their places.
func (l *Log) keys() []string {
	keys := make([]string, 0, len(l.index))
	for key := range l.index {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int {
		x, y := l.index[a], l.index[b]
		return cmp.Or(cmp.Compare(x.segment.number, y.segment.number), cmp.Compare(x.offset, y.offset))
	})
	return keys
}

// Stats returns the journal's numbers.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{Records: len(l.index), Live: l.sizes.live, Dead: l.sizes.dead(), Segments: len(l.segments),
		Waiting: len(l.trouble.waiting), Lost: l.trouble.lost, Failing: l.trouble.err}
}

// Close syncs what was written and gives the folder back. Closing twice is fine.
func (l *Log) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	close(l.stop)
	<-l.ended
	l.retry()
	err := l.sync()
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.trouble.waiting); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d records are not in the journal in %s: %w", n, l.where, l.trouble.err))
	}
	l.closeSegments(l.segments)
	return errors.Join(err, l.unlock())
}

func (l *Log) closeSegments(list []*segment) {
	for _, s := range list {
		s.Close() // what counts was synced, or could not be
	}
}

func (l *Log) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
