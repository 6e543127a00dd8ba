package forward

import (
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func sliceOf(t *testing.T, thread int) time.Duration {
	t.Helper()
	attr, err := unix.SchedGetAttr(thread, 0)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(attr.Runtime)
}

// onThread runs f on a thread of its own, which ends with it.
func onThread(f func(thread int)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f(unix.Gettid())
	}()
	<-done
}

// A thread has the short slice while a loop is on it, and those that it starts have not.
func TestSlices(t *testing.T) {
	onThread(func(thread int) {
		usual := sliceOf(t, thread)
		short := slice
		if setSlice(thread, slice); sliceOf(t, thread) == usual {
			short = usual // a kernel without it
		}
		setSlice(thread, 0)
		var p threads
		for _, step := range []struct {
			from, to int
			want     time.Duration
		}{{0, thread, short}, {0, thread, short}, {thread, 0, short}, {thread, 0, usual}} {
			p.moved(step.from, step.to)
			if got := sliceOf(t, thread); got != step.want {
				t.Errorf("%+v: %v", step, got)
			}
		}
		p.moved(0, thread)
		onThread(func(other int) {
			if got := sliceOf(t, other); got != usual {
				t.Errorf("a thread that was started has slices of %v, want %v", got, usual)
			}
			p.moved(thread, other)
			if a, b := sliceOf(t, thread), sliceOf(t, other); a != usual || b != short {
				t.Errorf("after the loop went over: %v and %v, want %v and %v", a, b, usual, short)
			}
			p.moved(other, 0) // the first thread of a process does not end
		})
	})
}

// Under traffic the loops' threads have the short slice, and no others.
func TestPacketThreadsHaveShortSlices(t *testing.T) {
	eachTable(t, 1, func(t *testing.T, table Table) {
		in, out, party := openPort(t, table, "127.0.0.1", handlerFunc(refuse)), openPort(t, table, "127.0.0.1", handlerFunc(refuse)), phone(t, "127.0.0.1")
		in.Install(Flow{Source: addrOf(party), Out: out, Dest: addrOf(party)})
		for range 20 {
			if _, err := party.WriteToUDPAddrPort(rtpPacket(1, 7), in.Local()); err != nil {
				t.Fatal(err)
			}
			receive(t, party)
		}
		list, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		packetThreads.mu.Lock()
		defer packetThreads.mu.Unlock()
		if len(packetThreads.loops) == 0 {
			t.Error("no thread is known to move packets")
		}
		for _, f := range list {
			thread, _ := strconv.Atoi(f.Name())
			attr, err := unix.SchedGetAttr(thread, 0)
			if err != nil {
				continue // it ended
			}
			if packet := packetThreads.loops[thread] > 0; !packet && time.Duration(attr.Runtime) == slice {
				t.Errorf("thread %d has short slices, and moves no packets", thread)
			}
		}
	})
}
