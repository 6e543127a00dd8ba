package doctor

import "io/fs"

// Kernels: from which on something is there.
var (
	tcxKernel     = version{6, 6}
	pathKernel    = version{5, 15} // clsact and all that the program needs
	accountKernel = version{5, 11} // BPF memory is counted by cgroups, not by RLIMIT_MEMLOCK
)

func (v version) has(v2 version) bool { return v.atLeast(v2.major, v2.minor) }

// noBPF says why the kernel gets no program on this host whatever else is right; empty:
// nothing is against it.
func (f *facts) noBPF() string {
	switch {
	case f.relay.FastPath == "off":
		return "fast_path = off"
	case f.known && !f.kernel.has(pathKernel):
		return "this kernel has no fast path"
	}
	return ""
}

// noKernelPath says the same of streams that the kernel moves.
func (f *facts) noKernelPath() string {
	if f.relay.FastPath == "sk_lookup" {
		return "fast_path = sk_lookup"
	}
	return f.noBPF()
}

// lacking is the result when packets are moved in a slower way because something is
// missing: a warning, unless the configuration asks for just that way.
func (f *facts) lacking(mend, format string, args ...any) outcome {
	if f.relay.FastPath == "auto" {
		return warn(mend, format, args...)
	}
	return fail(mend, format, args...)
}

// instead is how packets are moved when the kernel gets no program.
const instead = "packets are moved in user space, with a socket for each port"

func kernel(f *facts) outcome {
	switch {
	case !f.known:
		return f.lacking("see what uname -r says", "release %q is not understood: %s is needed for the fast path", f.release, pathKernel)
	case f.relay.FastPath == "off":
		return pass("%s; fast_path = off: %s", f.release, instead)
	case !f.kernel.has(pathKernel):
		return f.lacking("install and boot a kernel of "+pathKernel.String()+" or later",
			"%s: %s; the fast path needs %s", f.release, instead, pathKernel)
	case f.relay.FastPath == "sk_lookup":
		return pass("%s; fast_path = sk_lookup: packets are moved in user space", f.release)
	case f.hookName() == "tcx":
		return pass("%s: fast path by tcx", f.release)
	case f.relay.FastPath == "clsact":
		return pass("%s: fast path by clsact", f.release)
	}
	return pass("%s: fast path by clsact (tcx from %s on)", f.release, tcxKernel)
}

// hookName is how a program gets at packets.
func (f *facts) hookName() string {
	if f.relay.FastPath == "clsact" || f.known && !f.kernel.has(tcxKernel) {
		return "clsact"
	}
	return "tcx"
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

// bpffs: what the kernel knows of streams outlives the relay because it is pinned there.
func bpffs(f *facts) outcome {
	const without = "without it calls lose their media at a restart"
	dir, mount, why := f.relay.BPFDir, f.mount, f.noBPF()
	switch {
	case why != "":
		return skip("%s", why)
	case dir == "":
		return skip("bpf_dir is empty: calls lose their media at a restart")
	case !f.bpf.exists() && mount == bpfFolder:
		return fail("in a container: --volume "+mount+":"+mount, "there is no %s: %s", mount, without)
	case f.pins.Type != bpfMagic:
		command := "mount -t bpf bpf " + mount
		if !f.bpf.exists() {
			command = "mkdir -p " + mount + " && " + command
		}
		return fail(command, "nothing is mounted at %s: %s", mount, without)
	case f.pins.ReadOnly:
		return fail("mount -o remount,rw "+mount, "%s is read-only: %s", mount, without)
	}
	return f.pinFolder(without)
}

// pinFolder looks at the folder that the relay needs in the BPF file system.
func (f *facts) pinFolder(without string) outcome {
	dir, who := f.relay.BPFDir, f.user.name
	closed := f.bpf.closedTo(f.user)
	own := "install -d -o " + who + " " + dir
	if closed != "" {
		own = "chmod o+x " + closed + " && " + own
	}
	switch {
	case f.pins.exists() && f.pins.writableBy(f.user):
		return pass("%s is there, and %s may write to it", dir, who)
	case closed != "":
		return fail(own, "user %s may not enter %s: %s", who, closed, without)
	case f.pins.exists():
		return fail(own, "%s belongs to somebody else than %s: %s", dir, who, without)
	case f.pins.writableBy(f.user):
		return pass("mounted; %s makes %s when needed", who, dir)
	}
	return fail(own, "user %s has no %s: %s", who, dir, without)
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
