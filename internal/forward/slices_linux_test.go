package forward

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Packets are moved on any thread, so all have the setting, those that are started
// later included. On a kernel without it nothing is to be found anywhere.
func TestAllThreadsHaveShortSlices(t *testing.T) {
	want := uint64(0)
	if kept := shorten(unix.Gettid()); kept {
		want = uint64(slice)
	}
	shortSlices()
	var running sync.WaitGroup
	leave := make(chan struct{})
	const more = 20
	started := make(chan struct{}, more)
	for range more {
		running.Go(func() { // each has a thread for itself, which ends with it
			runtime.LockOSThread()
			started <- struct{}{}
			<-leave
		})
	}
	for range more {
		<-started
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil || len(threads) <= more {
		t.Fatalf("%d threads, %v", len(threads), err)
	}
	for _, thread := range threads {
		id, _ := strconv.Atoi(thread.Name())
		attr, err := unix.SchedGetAttr(id, 0)
		if err != nil { // it ended
			continue
		}
		if attr.Runtime != want {
			t.Errorf("thread %d has slices of %d ns, want %d", id, attr.Runtime, want)
		}
	}
	close(leave)
	running.Wait()
}
