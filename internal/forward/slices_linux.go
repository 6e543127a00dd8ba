package forward

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const slice = 100 * time.Microsecond // the least that the kernel takes

// packetThreads are the threads that packet loops run on at the moment. The kernel gives
// them their turns often and briefly: a packet needs microseconds of one, and would else
// wait until a thread that computes, here or in another process, has used up its slice.
// All others keep the slice that they had, so that these go before them. Needs Linux
// 6.12, and changes nothing before.
var packetThreads threads

type threads struct {
	mu    sync.Mutex
	loops map[int]int // how many loops are on a thread
}

// moved says that a loop went from one thread to another; 0: none.
func (t *threads) moved(from, to int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.loops == nil {
		t.loops = map[int]int{}
	}
	if from != 0 {
		if t.loops[from]--; t.loops[from] == 0 {
			delete(t.loops, from)
			setSlice(from, 0)
		}
	}
	if to != 0 {
		if t.loops[to]++; t.loops[to] == 1 {
			setSlice(to, slice)
		}
	}
}

// setSlice sets the slice of a thread that has the ordinary policy, 0: the system's. Threads
// that it starts do not inherit it. Without the right to, or on an older kernel, packets
// wait as they do elsewhere.
func setSlice(thread int, d time.Duration) {
	attr, err := unix.SchedGetAttr(thread, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return
	}
	attr.Runtime = uint64(d)
	attr.Flags |= unix.SCHED_FLAG_RESET_ON_FORK
	_ = unix.SchedSetAttr(thread, attr, 0)
}
