package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// level is one way to move packets, better ones first.
type level struct {
	name   string
	kernel bool       // decided flows never reach user space
	in     []FastPath // settings that try it
	open   func(Config, *slog.Logger) (Table, error)
}

// levels in the order in which they are tried. Behind them all is a socket for each
// port, which needs nothing.
var levels = []level{
	{"tcx and sk_lookup", true, []FastPath{Auto, TC}, func(c Config, log *slog.Logger) (Table, error) { return openSteered(c, true, false, log) }},
	{"clsact and sk_lookup", true, []FastPath{Auto, TC, Clsact}, func(c Config, log *slog.Logger) (Table, error) { return openSteered(c, true, true, log) }},
	{"tcx and a socket for each port", true, []FastPath{Auto, TC}, func(c Config, log *slog.Logger) (Table, error) { return openBound(c, false, log) }},
	{"clsact and a socket for each port", true, []FastPath{Auto, TC, Clsact}, func(c Config, log *slog.Logger) (Table, error) { return openBound(c, true, log) }},
	{"sk_lookup, in user space", false, []FastPath{Auto, TC, Clsact, SkLookup}, func(c Config, log *slog.Logger) (Table, error) { return openSteered(c, false, false, log) }},
}

// Open makes the best table that the configuration asks for and the host allows. Each
// that is refused is logged with the reason, once for all that have the same one.
func Open(cfg Config, log *slog.Logger) (Table, error) {
	cfg.setDefaults(runtime.GOMAXPROCS(0))
	if len(cfg.Locals) == 0 {
		cfg.FastPath = Off
	}
	if cfg.FastPath == SkLookup || cfg.FastPath == Off {
		cfg.notKernel = "fast_path = " + string(cfg.FastPath)
	}
	severity := slog.LevelWarn
	if cfg.FastPath == Auto {
		severity = slog.LevelInfo // nobody asked for a certain one
	}
	inKernel, told := true, map[string]bool{}
	former := leftPins(cfg.Pins)
	for _, l := range levels {
		if !slices.Contains(l.in, cfg.FastPath) || l.kernel && !inKernel {
			continue
		}
		t, err := l.open(cfg, log)
		if err == nil {
			log.Info("packets are moved by " + l.name)
			return t, nil
		}
		if reason := err.Error(); !told[reason] {
			log.Log(context.Background(), severity, "packets cannot be moved by "+l.name, "reason", reason, "hint", hint(err))
			told[reason] = true
		}
		if cfg.notKernel == "" {
			cfg.notKernel = err.Error() // of the best one: that is worth mending
		}
		inKernel = inKernel && !errors.Is(err, errNoDevice)
	}
	t, err := NewLoops(cfg, log)
	if err != nil {
		return nil, err // the next process may be able to go on with what is in the kernel
	}
	endFormer(cfg.Pins, former, log)
	log.Info("packets are moved in user space, with a socket for each port")
	return t, nil
}

// hint is what an operator may do about a refusal.
func hint(err error) string {
	switch {
	case errors.Is(err, errNoCapability):
		return "give the relay CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW; mediaproxy doctor tells more"
	case errors.Is(err, os.ErrPermission), errors.Is(err, unix.EACCES):
		return "something besides capabilities forbids it: the unit's SystemCallFilter, the container's seccomp profile, or a security module"
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return "this kernel lacks what it needs (5.15 or newer; 6.6 for tcx)"
	case errors.Is(err, errNoDevice):
		return "relay_ip has to be an address of an Ethernet device for that; calls on this host alone do not need it"
	}
	return "mediaproxy doctor tells more"
}

// openSteered makes a table on sk_lookup, with the kernel moving decided flows if
// tc says so.
func openSteered(cfg Config, tc, classic bool, log *slog.Logger) (Table, error) {
	if err := privileged(unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW); err != nil {
		return nil, err
	}
	programs, mover := []string{flowProgFlowLookup}, MoverUser
	if tc {
		programs, mover = append(programs, flowProgFlowTc), MoverKernel
	}
	k, err := openKernel(cfg, programs, classic, log)
	if err != nil {
		return nil, err
	}
	t, err := newSteered(cfg, k, mover, log)
	if err != nil {
		k.abandon()
		return nil, err
	}
	err = k.start(func(h *hooks) error {
		h.classic = classic
		steps := []func() error{h.attachIngress, h.attachLookup}
		switch {
		case !tc:
			steps = steps[1:]
		case classic:
			// The kernel drops what a device sends for some milliseconds while it gets its first
			// clsact qdisc (dev_deactivate): not in vain, if it is the lookup that is refused.
			slices.Reverse(steps)
		}
		for _, step := range steps {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.abandon()
		return nil, err
	}
	if tc {
		log.Info("decided flows are moved inside the kernel", "devices", k.hooks.names(), "pinned", k.pins)
	}
	return t, nil
}

// openBound makes a table with a socket for each port, whose decided flows the kernel
// moves: for a process that may not send from ports without a socket.
func openBound(cfg Config, classic bool, log *slog.Logger) (Table, error) {
	if err := privileged(unix.CAP_BPF, unix.CAP_NET_ADMIN); err != nil {
		return nil, err
	}
	k, err := openKernel(cfg, []string{flowProgFlowTc}, classic, log)
	if err != nil {
		return nil, err
	}
	t, err := newLoops(cfg, k, log)
	if err != nil {
		k.abandon()
		return nil, err
	}
	if err := k.start(func(h *hooks) error { h.classic = classic; return h.attachIngress() }); err != nil {
		t.abandon()
		return nil, err
	}
	log.Info("decided flows are moved inside the kernel", "devices", k.hooks.names(), "pinned", k.pins)
	return t, nil
}

// privileged says which of some capabilities this process lacks.
func privileged(needed ...int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read the capabilities: %w", err)
	}
	var missing []string
	for _, c := range needed {
		if data[c/32].Effective&(1<<(c%32)) == 0 {
			missing = append(missing, capNames[c])
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("no %s: %w", strings.Join(missing, ", "), errNoCapability)
	}
	return nil
}

var errNoCapability = fmt.Errorf("%w", os.ErrPermission)

// allowed says whether the bpf system call works at all. Which of the maps fails first
// would depend on chance.
func allowed() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("use the bpf system call: %w", unix.EPERM)
	}
	if err != nil {
		return fmt.Errorf("use the bpf system call: %w", err)
	}
	return m.Close()
}

var capNames = map[int]string{unix.CAP_BPF: "CAP_BPF", unix.CAP_NET_ADMIN: "CAP_NET_ADMIN", unix.CAP_NET_RAW: "CAP_NET_RAW"}
