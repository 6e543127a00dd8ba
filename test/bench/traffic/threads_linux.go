package traffic

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Dedicated calls f with the thread on one processor and before other programs
// there. Programs that it starts are so, too.
func Dedicated(core int, f func() error) error {
	return as(core, unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: -20}, f)
}

// yielding calls f with the thread on one processor, from which it goes whenever
// another thread has work to do.
func yielding(core int, f func() error) error {
	return as(core, unix.SchedAttr{Policy: unix.SCHED_IDLE}, f)
}

func as(core int, want unix.SchedAttr, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var cores, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cores); err != nil {
		return err
	}
	was, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return err
	}
	one.Set(core)
	want.Size = unix.SizeofSchedAttr
	if err := errors.Join(unix.SchedSetaffinity(0, &one), unix.SchedSetAttr(0, &want, 0)); err != nil {
		return fmt.Errorf("have a processor's precedence (needs root): %w", err)
	}
	return errors.Join(f(), unix.SchedSetAttr(0, was, 0), unix.SchedSetaffinity(0, &cores))
}

// CPUTime is what a process has used of the processors, all its threads together, to
// the nanosecond.
func CPUTime(pid int) (time.Duration, error) {
	const scheduler = 2 // CPUCLOCK_SCHED of linux/posix-timers_types.h
	t, err := clock(int32(^pid<<3 | scheduler))
	if err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	return t, nil
}

// threadTime is what the calling thread has used.
func threadTime() time.Duration {
	t, _ := clock(unix.CLOCK_THREAD_CPUTIME_ID) // Linux has it
	return t
}

func clock(id int32) (time.Duration, error) {
	var t unix.Timespec
	err := unix.ClockGettime(id, &t)
	return time.Duration(t.Nano()), err
}
