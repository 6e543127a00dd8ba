package journal

import (
	"os"
	"syscall"
)

// syncData leaves out what reading the data back does not need, such as times.
func syncData(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }
