package program

import "syscall"

// raiseDescriptorLimit lets the process open all media ports, if it may: root may pass
// the hard limit. What it may not is left to the relay, which says how many streams fit.
func raiseDescriptorLimit(ports int) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return
	}
	want := uint64(ports + spareDescriptors)
	if limit.Cur >= want {
		return
	}
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: want, Max: max(limit.Max, want)})
}
