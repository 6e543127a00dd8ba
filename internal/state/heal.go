package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// A server that could not write to its disk once keeps nothing more, also when there is room
// again. So the disk is looked at before it is full, and a server that does not answer is
// started anew once there is room: what it had kept is there.

// ErrNoRoom: so little is free on the disk that nothing more is kept.
var ErrNoRoom = errors.New("no room left on the disk")

// disk is the file system of a folder.
type disk struct {
	dir     string
	reserve int64

	mu    sync.Mutex // guards what follows
	asked time.Time
	free  int64
}

// askDisk is how old the answer may be.
const askDisk = time.Second

// room says why so many bytes should not be written. It asks the system now and then, and
// counts in between.
func (d *disk) room(size int) error {
	if d.dir == "" {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free -= int64(size)
	if d.free < d.reserve || time.Since(d.asked) > askDisk {
		free, err := freeBytes(d.dir)
		if err != nil {
			return nil // whatever that is, the server will find out
		}
		d.asked, d.free = time.Now(), free-int64(size)
	}
	if d.free < d.reserve {
		return fmt.Errorf("%w of %s: %d bytes are free, %d have to be", ErrNoRoom, d.dir, d.free, d.reserve)
	}
	return nil
}

// suspect notes that the server has not answered in time.
func (o *Outbox) suspect(err error) {
	if o.healing == nil || !errors.Is(err, context.DeadlineExceeded) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.broken == nil {
		o.broken = errors.New("the outbox does not keep anything any more, it is opened again when its disk can be written")
		o.log.Error("the outbox cannot be written: look whether its disk is full, read-only or failing", "dir", o.cfg.Dir)
	}
}

// heal opens a server anew that keeps nothing any more.
func (o *Outbox) heal() {
	tick := time.NewTicker(askDisk)
	defer tick.Stop()
	for {
		select {
		case <-o.healing:
			return
		case <-tick.C:
		}
		s, broken := o.now()
		if broken == nil || o.disk.room(0) != nil || writable(o.cfg.Dir) != nil {
			continue
		}
		s.node.close() // Receive ends, and is called again
		if err := o.openStore(); err != nil {
			o.log.Error("the outbox cannot be opened again yet", "error", err)
			continue
		}
		o.log.Info("the outbox is opened again")
	}
}

// writable tries to write a file in a folder.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".try")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(make([]byte, 64<<10))
	return errors.Join(err, f.Sync(), f.Close())
}
