package doctor

import "io/fs"

// Kernels: from which on something is there.
var (
	tcxKernel     = version{6, 6}
	pathKernel    = version{5, 15} // clsact and all that the program needs
	accountKernel = version{5, 11} // BPF memory is counted by cgroups, not by RLIMIT_MEMLOCK
)

func (v version) has(v2 version) bool { return v.atLeast(v2.major, v2.minor) }

// noKernelPath says why packets are moved in user space on this host whatever else is
// right; empty: nothing is against the kernel path.
func (f *facts) noKernelPath() string {
	switch {
	case f.relay.FastPath == "off":
		return "fast_path = off"
	case f.known && !f.kernel.has(pathKernel):
		return "this kernel has no fast path"
	}
	return ""
}

// lacking is the result when packets are moved in user space because something is
// missing: a warning, unless the configuration insists on the kernel.
func (f *facts) lacking(mend, format string, args ...any) outcome {
	if f.relay.FastPath == "tc" {
		return fail(mend, format, args...)
	}
	return warn(mend, format, args...)
}

func kernel(f *facts) outcome {
	switch {
	case !f.known:
		return f.lacking("see what uname -r says", "release %q is not understood: %s is needed for the fast path", f.release, pathKernel)
	case f.relay.FastPath == "off":
		return pass("%s; fast_path = off: packets are moved in user space", f.release)
	case !f.kernel.has(pathKernel):
		return f.lacking("install and boot a kernel of "+pathKernel.String()+" or later",
			"%s: packets are moved in user space, the fast path needs %s", f.release, pathKernel)
	case !f.kernel.has(tcxKernel):
		return pass("%s: fast path by clsact (tcx from %s on)", f.release, tcxKernel)
	}
	return pass("%s: fast path by tcx", f.release)
}

func memoryLock(f *facts) outcome {
	switch {
	case f.relay.FastPath == "off":
		return skip("fast_path = off")
	case !f.known:
		return skip("kernel release %q is not understood", f.release)
	case f.kernel.has(accountKernel):
		return pass("its limit does not count for BPF from %s on", accountKernel)
	case f.judged.memory == unlimited:
		return pass("unlimited")
	}
	return warn(f.judged.mendLimit("MEMLOCK", "memlock", "infinity"),
		"%s may lock %d KiB, and before %s that bounds BPF maps", f.judgedName(), f.judged.memory>>10, accountKernel)
}

// bpfMagic is the type of the BPF file system.
const bpfMagic = 0xcafe4a11

// bpffs: flows outlive a restart of the relay because they are pinned there.
func bpffs(f *facts) outcome {
	if why := f.noKernelPath(); why != "" {
		return skip("%s", why)
	}
	const without = "without it calls lose their media at a restart"
	if !f.bpf.exists() {
		return fail("in a container: --volume "+bpfFolder+":"+bpfFolder, "there is no %s: %s", bpfFolder, without)
	}
	if f.bpf.Type != bpfMagic {
		return fail("mount -t bpf bpf "+bpfFolder, "nothing is mounted at %s: %s", bpfFolder, without)
	}
	if f.bpf.ReadOnly {
		return fail("mount -o remount,rw "+bpfFolder, "%s is read-only: %s", bpfFolder, without)
	}
	closed := f.bpf.closedTo(f.user)
	own := "install -d -o " + f.user.name + " " + pinFolder
	if closed != "" {
		own = "chmod o+x " + closed + " && " + own
	}
	switch {
	case f.pins.exists() && f.pins.writableBy(f.user):
		return pass("%s is there, and %s may write to it", pinFolder, f.user.name)
	case f.pins.exists() && closed == "":
		return fail(own, "%s belongs to somebody else than %s", pinFolder, f.user.name)
	case closed != "":
		return fail(own, "user %s may not enter %s: %s", f.user.name, closed, without)
	case f.bpf.writableBy(f.user):
		return pass("mounted; %s makes %s when needed", f.user.name, pinFolder)
	}
	return fail(own, "user %s has no %s: %s", f.user.name, pinFolder, without)
}

// exists tells whether the whole way is there.
func (d Folder) exists() bool {
	return len(d.Steps) > 0 && d.Steps[len(d.Steps)-1].Path == d.Path
}

// last is the folder itself, or how far the way goes.
func (d Folder) last() Step {
	if len(d.Steps) == 0 {
		return Step{Path: "/"}
	}
	return d.Steps[len(d.Steps)-1]
}

// closedTo returns the first folder on the way that a user may not enter; empty: none.
func (d Folder) closedTo(u user) string {
	for _, s := range d.Steps {
		if !s.allows(u, 1) {
			return s.Path
		}
	}
	return ""
}

// writableBy tells whether a user may make files at the last step.
func (d Folder) writableBy(u user) bool {
	return d.closedTo(u) == "" && d.last().allows(u, 2)
}

// allows looks at the bits of the mode: 2 write, 1 enter. Access lists are not looked at.
func (s Step) allows(u user, bits fs.FileMode) bool {
	mode := s.Mode.Perm()
	switch {
	case u.uid == 0:
		return true
	case u.uid == s.UID:
		mode >>= 6
	case u.in(s.GID):
		mode >>= 3
	}
	return mode&bits == bits
}

func (u user) in(group int) bool {
	for _, g := range u.groups {
		if g == group {
			return true
		}
	}
	return false
}
