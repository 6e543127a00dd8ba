package doctor

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// plain becomes an ordinary user, who keeps what may be got by capabilities of a file.
var plain = []string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"}

func TestCapabilities(t *testing.T) {
	p := newPatient(t)
	p.examine().says("capabilities", "pass", "this process has CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW")

	without := func(caps string) []string { return []string{"setpriv", "--bounding-set", caps, "--inh-caps", "-all"} }
	for _, c := range []struct{ drop, found, mend string }{
		{"-bpf", "lacks CAP_BPF: packets are moved in user space", "in a container: --cap-add BPF"},
		{"-net_admin", "lacks CAP_NET_ADMIN: packets are moved in user space", "in a container: --cap-add NET_ADMIN"},
		{"-net_raw", "lacks CAP_NET_RAW: the slow path has a socket for each port", "in a container: --cap-add NET_RAW"},
	} {
		p.examine(without(c.drop)...).mends("capabilities", "warn", c.found, c.mend)
	}
	p.examine("unshare", "--user", "--map-root-user").says("capabilities", "warn", "user namespace, where CAP_BPF does not count")

	ambient := "+bpf,+net_admin,+net_raw"
	p.examine(append(plain, "--inh-caps", ambient, "--ambient-caps", ambient)...).says("capabilities", "pass", "this process has")
}

// An ordinary user's program gets its capabilities by the command that is printed.
func TestCapabilitiesOfFile(t *testing.T) {
	p := newPatient(t)
	own := filepath.Join(p.config, "mediaproxy")
	if out, err := exec.Command("cp", p.binary, own).CombinedOutput(); err != nil {
		t.Fatalf("copy the program: %v: %s", err, out)
	}
	p.binary = own
	mend := p.examine(plain...).says("capabilities", "warn", "this process lacks CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW: packets")
	p.obey(mend, "setcap cap_bpf,cap_net_admin,cap_net_raw+ep "+own)
	p.examine(plain...).says("capabilities", "pass", "this process has CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW")
}

func TestFastPathWanted(t *testing.T) {
	p := newPatient(t, "fast_path = tc")
	p.examine("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-all").says("capabilities", "fail", "lacks CAP_NET_ADMIN")
}

func TestFastPathOff(t *testing.T) {
	f := newPatient(t, "fast_path = off").examine("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-all")
	for _, check := range []string{"capabilities", "memory lock", "bpffs", "hook up0"} {
		f.says(check, "skip", "fast_path = off")
	}
	f.says("kernel", "pass", "packets are moved in user space")
}

// mounts asks before and after a command in a mount namespace of its own, which is made
// ready with a script.
func (p *patient) mounts(ready, command string) (before, after findings) {
	p.t.Helper()
	for i, script := range []string{ready, ready + "\n" + command} {
		f := p.examine("unshare", "--mount", "sh", "-ec", script+"\nexec \"$@\"", "sh")
		if i == 0 {
			before = f
		} else {
			after = f
		}
	}
	return before, after
}

const unmount = "while umount /sys/fs/bpf 2>/dev/null; do :; done"

func TestNoBPFFS(t *testing.T) {
	p := newPatient(t)
	const mount = "mount -t bpf bpf /sys/fs/bpf"
	before, after := p.mounts(unmount, mount)
	before.mends("bpffs", "fail", "nothing is mounted at /sys/fs/bpf: without it calls lose their media", mount)
	after.says("bpffs", "pass", "mounted")

	const remount = "mount -o remount,rw /sys/fs/bpf"
	before, after = p.mounts(unmount+"\n"+mount+"\nmount -o remount,ro /sys/fs/bpf", remount)
	before.mends("bpffs", "fail", "read-only", remount)
	after.says("bpffs", "pass", "mounted")
}

// The relay of the unit files is a user of its own. Root, who asks, may write anywhere.
func TestServiceUser(t *testing.T) {
	p := newPatient(t)
	passwd := filepath.Join(p.config, "passwd")
	if err := os.WriteFile(passwd, []byte("root:x:0:0:root:/root:/bin/sh\nmediaproxy:x:64997:64997::/:/bin/false\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ready := "mount --bind " + passwd + " /etc/passwd\n" + unmount + "\nmount -t bpf -o mode=700 bpf /sys/fs/bpf"
	const pins = "chmod o+x /sys/fs/bpf && install -d -o mediaproxy /sys/fs/bpf/mediaproxy"
	state := "chown mediaproxy " + p.config
	before, after := p.mounts(ready, pins+" && "+state)
	before.mends("bpffs", "fail", "user mediaproxy may not enter /sys/fs/bpf", pins)
	before.mends("state_dir", "fail", "user mediaproxy may not write to "+p.config, state)
	after.says("bpffs", "pass", "/sys/fs/bpf/mediaproxy is there, and mediaproxy may write to it")
	after.says("state_dir", "pass", p.config)
	after.says("capabilities", "pass", "user mediaproxy needs them, too")
}

func TestStateDir(t *testing.T) {
	p := newPatient(t)
	p.examine().says("state_dir", "pass", p.config+", ")
	full, remount := "mount -t tmpfs -o size=1m tmpfs "+p.config, "mount -o remount,rw "+p.config
	keep := "config=$(cat " + p.config + "/config.ini)\n" + full + "\necho \"$config\" > " + p.config + "/config.ini"
	before, after := p.mounts(keep+"\nmount -o remount,ro "+p.config, remount)
	before.mends("state_dir", "fail", "read-only file system", remount)
	after.mends("state_dir", "warn", "has only 0 MiB free", "du -xhd1 "+p.config+" | sort -h")
}
