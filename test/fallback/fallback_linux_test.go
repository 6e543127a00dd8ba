package fallback

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/test/internal/netlab"
	"example.org/mediaproxy/test/internal/program"
)

// circumstance is what a relay finds when it starts, and what it is to make of it.
type circumstance struct {
	name     string
	settings program.Settings
	wrap     []string // FOLDER stands for bpf_dir, CALLS for what the unit allows
	refuse   string   // hooks that the kernel is to lack; see forward/refuse_control_linux.go
	user     int      // whom it runs as, with a folder of its own in the BPF file system

	way       string   // what it says that moves its packets
	mover     string   // what operators are shown
	notKernel string   // and the reason
	refusals  []string // one line for each: reason, hint
	warnings  []string // other lines of this level, apart from those about ports
	programs  netlab.Programs
	pinned    bool
}

const (
	nobody = 65534

	bySockets = "packets are moved in user space, with a socket for each port"
	noRights  = "hint=\"give the relay CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW"
	noKernel  = "hint=\"this kernel lacks what it needs"
)

func without(capabilities string) []string {
	return []string{"setpriv", "--inh-caps=" + capabilities, "--bounding-set=" + capabilities}
}

func as(user int, more ...string) []string {
	id := fmt.Sprint(user)
	return append([]string{"setpriv", "--reuid=" + id, "--regid=" + id, "--clear-groups"}, more...)
}

var (
	threeCapabilities = as(nobody, "--inh-caps=-all,+bpf,+net_admin,+net_raw", "--ambient-caps=-all,+bpf,+net_admin,+net_raw",
		"--bounding-set=-all,+bpf,+net_admin,+net_raw")
	// sandbox is what media-relay.service makes of a relay, as far as it matters here.
	sandbox = slices.Concat([]string{"unshare", "--mount", "sh", "-c",
		`mount --bind FOLDER FOLDER && mount -o remount,bind,ro /sys/fs/bpf && mount -o remount,bind,ro /sys && exec "$@"`, "sh"},
		threeCapabilities, []string{os.Args[0], onlyCalls, "CALLS"})
)

var circumstances = []circumstance{
	{
		name: "all rights", way: "packets are moved by tcx and sk_lookup", mover: "tc",
		programs: netlab.Programs{TCX: 1, SkLookup: 1}, pinned: true,
	},
	{
		name: "clsact", settings: program.Settings{"fast_path": "clsact"}, way: "packets are moved by clsact and sk_lookup", mover: "tc",
		programs: netlab.Programs{Filters: 1, SkLookup: 1}, pinned: true,
	},
	{
		name: "sk_lookup", settings: program.Settings{"fast_path": "sk_lookup"}, way: "packets are moved by sk_lookup, in user space",
		mover: "user-space", notKernel: "fast_path = sk_lookup", programs: netlab.Programs{SkLookup: 1}, pinned: true,
	},
	{
		name: "off", settings: program.Settings{"fast_path": "off"}, way: bySockets, mover: "user-space", notKernel: "fast_path = off",
	},
	{
		name: "no raw sockets", wrap: without("-net_raw"), way: "packets are moved by tcx and a socket for each port", mover: "tc",
		refusals: []string{"level=INFO|moved by tcx and sk_lookup|reason=\"no CAP_NET_RAW: |" + noRights},
		programs: netlab.Programs{TCX: 1}, pinned: true,
	},
	{
		name: "neither BPF nor network administration", settings: program.Settings{"fast_path": "tc"}, wrap: without("-bpf,-net_admin"),
		way: bySockets, mover: "user-space", notKernel: "no CAP_BPF, CAP_NET_ADMIN: permission denied",
		refusals: []string{"level=WARN|moved by tcx and sk_lookup|reason=\"no CAP_BPF, CAP_NET_ADMIN: |" + noRights},
	},
	{
		name: "a user with three capabilities", user: nobody, wrap: threeCapabilities,
		way: "packets are moved by tcx and sk_lookup", mover: "tc", programs: netlab.Programs{TCX: 1, SkLookup: 1}, pinned: true,
	},
	{
		name: "in the unit's sandbox", user: nobody, wrap: sandbox, way: "packets are moved by tcx and sk_lookup", mover: "tc",
		programs: netlab.Programs{TCX: 1, SkLookup: 1}, pinned: true,
	},
	{
		name: "a user without capabilities", user: nobody, wrap: as(nobody, "--inh-caps=-all", "--bounding-set=-all"),
		way: bySockets, mover: "user-space", notKernel: "no CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW: permission denied",
		refusals: []string{
			"level=INFO|moved by tcx and sk_lookup|reason=\"no CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW: |" + noRights,
			"level=INFO|moved by tcx and a socket for each port|reason=\"no CAP_BPF, CAP_NET_ADMIN: |" + noRights,
		},
	},
	{
		name: "no BPF file system", wrap: []string{"unshare", "--mount", "sh", "-c", `umount /sys/fs/bpf && exec "$@"`, "sh"},
		way: "packets are moved by tcx and sk_lookup", mover: "tc", programs: netlab.Programs{TCX: 1, SkLookup: 1},
		warnings: []string{"kernel flows will end with this process|mount -t bpf"},
	},
	{
		name: "no bpf system call", wrap: []string{os.Args[0], forbidBPF},
		way: bySockets, mover: "user-space", notKernel: "use the bpf system call: operation not permitted",
		refusals: []string{"level=INFO|moved by tcx and sk_lookup|reason=\"use the bpf system call: operation not permitted|hint=\"something besides capabilities forbids it"},
	},
	{
		name: "kernel without tcx", refuse: "tcx", way: "packets are moved by clsact and sk_lookup", mover: "tc",
		refusals: []string{"level=INFO|moved by tcx and sk_lookup|reason=\"attach to up0: tcx|" + noKernel},
		programs: netlab.Programs{Filters: 1, SkLookup: 1}, pinned: true,
	},
	{
		name: "kernel without sk_lookup", refuse: "sk_lookup", way: "packets are moved by tcx and a socket for each port", mover: "tc",
		refusals: []string{"level=INFO|moved by tcx and sk_lookup|reason=\"attach to the socket lookup: |" + noKernel},
		programs: netlab.Programs{TCX: 1}, pinned: true,
	},
	{
		name: "kernel without tcx and sk_lookup", refuse: "tcx,sk_lookup", way: "packets are moved by clsact and a socket for each port", mover: "tc",
		refusals: []string{
			"level=INFO|moved by tcx and sk_lookup|reason=\"attach to up0: tcx|" + noKernel,
			"level=INFO|moved by clsact and sk_lookup|reason=\"attach to the socket lookup: |" + noKernel,
		},
		programs: netlab.Programs{Filters: 1}, pinned: true,
	},
	{
		name: "kernel without hooks at devices", refuse: "tcx,clsact", way: "packets are moved by sk_lookup, in user space", mover: "user-space",
		notKernel: "attach to up0: tcx is refused by MEDIAPROXY_REFUSE: not supported",
		refusals: []string{
			"level=INFO|moved by tcx and sk_lookup|reason=\"attach to up0: tcx|" + noKernel,
			"level=INFO|moved by clsact and sk_lookup|reason=\"attach to up0: clsact|" + noKernel,
		},
		programs: netlab.Programs{SkLookup: 1}, pinned: true,
	},
	{
		name: "kernel without hooks", refuse: "tcx,clsact,sk_lookup", way: bySockets, mover: "user-space",
		notKernel: "attach to up0: tcx is refused by MEDIAPROXY_REFUSE: not supported",
		refusals: []string{
			"level=INFO|moved by tcx and sk_lookup|reason=\"attach to up0: tcx|" + noKernel,
			"level=INFO|moved by clsact and sk_lookup|reason=\"attach to the socket lookup: |" + noKernel,
			"level=INFO|moved by clsact and a socket for each port|reason=\"attach to up0: clsact|" + noKernel,
		},
	},
}

func TestCircumstances(t *testing.T) {
	netlab.Needs(t)
	ordinary, control := program.Build(t), program.Build(t, "mediaproxy_control")
	for _, c := range circumstances {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			binary := ordinary
			if c.refuse != "" {
				binary = control
			}
			w := newWorld(t)
			base := c.start(w, binary)
			pins, err := os.ReadDir(filepath.Join(base, filepath.Base(w.pair.Pins()), "v1"))
			if c.pinned != (err == nil && len(pins) > 0) {
				t.Errorf("pinned below %s: %v, %v; want pins: %v", base, pins, err, c.pinned)
			}
			if got := w.relay.Programs("up0"); got != c.programs {
				t.Errorf("attached are %+v, want %+v", got, c.programs)
			}
			heard := w.runFlows(t.Context(), c.mover, c.notKernel)
			c.checkSummary(w, heard)
			c.checkLog(t, w.pair.RelayLog())
		})
	}
}

// start starts dispatcher and relay. It returns the folder for pins, and has what is
// left behind fail the test.
func (c *circumstance) start(w *world, binary string) (base string) {
	w.t.Helper()
	o := program.Options{Relay: program.Settings{"relay_ip": relayIP, "port_range": "40000:41000"}, User: c.user, Env: []string{"MEDIAPROXY_REFUSE=" + c.refuse}}
	for k, v := range c.settings {
		o.Relay[k] = v
	}
	base = "/sys/fs/bpf/mediaproxy"
	if c.user != 0 {
		base = filepath.Join("/sys/fs/bpf", strings.Map(letters, w.t.Name()))
		o.Relay["bpf_dir"] = base
		if err := errors.Join(os.Mkdir(base, 0o700), os.Chown(base, c.user, c.user)); err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() {
			if err := os.Remove(base); err != nil {
				w.t.Error(err)
				os.RemoveAll(base)
			}
		})
	}
	w.t.Cleanup(func() {
		if got := w.relay.Programs("up0"); got != (netlab.Programs{}) {
			w.t.Errorf("the relay left programs attached: %+v", got)
		}
	})
	for _, arg := range c.wrap {
		if arg == "CALLS" {
			arg = unitCalls(w.t)
		}
		o.Wrap = append(o.Wrap, strings.ReplaceAll(arg, "FOLDER", base))
	}
	w.pair = program.StartWith(w.t, binary, w.relay, o)
	return base
}

// letters keeps what may be in a name of that file system.
func letters(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
		return r
	}
	return '_'
}

// checkSummary compares the relay's summary with what the phones heard.
func (c *circumstance) checkSummary(w *world, heard uint64) {
	w.t.Helper()
	relays, err := program.Documents[report.Relay](w.pair, "summary")
	if err != nil || len(relays) != 1 {
		w.t.Fatalf("summary: %v %v", relays, err)
	}
	m := relays[0].Moved
	w.t.Logf("the phones heard %d packets; %+v", heard, m)
	if m.Mover != c.mover || m.NotKernel != c.notKernel || m.Packets < heard {
		w.t.Errorf("summary: %+v, want %s, %q and at least %d packets", m, c.mover, c.notKernel, heard)
	}
	// What is not established, and the first packets of what is, come up to user space.
	if c.mover == "tc" && m.KernelPackets < heard*8/10 || c.mover != "tc" && m.KernelPackets != 0 {
		w.t.Errorf("the kernel moved %d of %d packets", m.KernelPackets, m.Packets)
	}
}

// checkLog wants one line for each refusal, the way that was taken, and no other
// complaints.
func (c *circumstance) checkLog(t *testing.T, log string) {
	t.Helper()
	count := func(words string) int { return len(lines(log, strings.Split(words, "|")...)) }
	refusals := lines(log, "packets cannot be moved by")
	if len(refusals) != len(c.refusals) {
		t.Errorf("%d refusals in the log, want %d: %s", len(refusals), len(c.refusals), strings.Join(refusals, ""))
	}
	for _, want := range append(slices.Clone(c.refusals), c.way) {
		if n := count(want); n != 1 {
			t.Errorf("%d lines with %q, want one; refusals: %s", n, want, strings.Join(refusals, ""))
		}
	}
	complaints := slices.DeleteFunc(append(lines(log, "level=WARN"), lines(log, "level=ERROR")...), func(line string) bool {
		return strings.Contains(line, "packets cannot be moved by") || strings.Contains(line, "ip_local_reserved_ports")
	})
	if len(complaints) != len(c.warnings) {
		t.Errorf("%d warnings, want %d: %s", len(complaints), len(c.warnings), strings.Join(complaints, ""))
	}
	for _, want := range c.warnings {
		if n := count(want); n != 1 {
			t.Errorf("%d lines with %q, want one", n, want)
		}
	}
}

// lines are those with all of these words.
func lines(text string, words ...string) (found []string) {
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			found = append(found, line)
		}
	}
	return found
}
