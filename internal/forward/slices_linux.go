package forward

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const slice = 100 * time.Microsecond // the least that the kernel takes

// shortSlices has the kernel give the threads of this process their turns often and
// briefly: a packet needs microseconds of one, and would else wait until a thread that
// computes, here or in another process, has used up its slice. All threads, because
// packets are moved on any of them; those to come inherit it. Needs Linux 6.12, and
// changes nothing before.
func shortSlices() {
	if !shorten(0) {
		return
	}
	for found := true; found; { // until none was started meanwhile by one without it
		found = false
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return // packets then wait as they do elsewhere
		}
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil {
				continue
			}
			if attr, err := unix.SchedGetAttr(id, 0); err == nil && attr.Runtime != uint64(slice) {
				found = shorten(id) || found
			}
		}
	}
}

// shorten says whether the slice of a thread is short then.
func shorten(thread int) bool {
	attr, err := unix.SchedGetAttr(thread, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return false
	}
	attr.Runtime = uint64(slice)
	if unix.SchedSetAttr(thread, attr, 0) != nil {
		return false
	}
	attr, err = unix.SchedGetAttr(thread, 0)
	return err == nil && attr.Runtime == uint64(slice)
}
