package program

import (
	"syscall"
	"testing"
)

func TestRaiseDescriptorLimit(t *testing.T) {
	var before, after syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	low := syscall.Rlimit{Cur: 512, Max: before.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)

	raiseDescriptorLimit(100)
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &after); err != nil {
		t.Fatal(err)
	}
	if want := uint64(100 + spareDescriptors); after.Cur != want || after.Max != before.Max {
		t.Errorf("limits are %+v, want %d, and the hard one as before (%d)", after, want, before.Max)
	}
	raiseDescriptorLimit(10)
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &after); err != nil || after.Cur != 100+spareDescriptors {
		t.Errorf("a high limit was lowered to %d", after.Cur)
	}
}
