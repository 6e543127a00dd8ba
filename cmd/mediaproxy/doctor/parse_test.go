package doctor

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseVersion(t *testing.T) {
	for _, c := range []struct {
		release string
		want    string
	}{
		{"6.1.0-13-amd64", "6.1"},
		{"5.15", "5.15"},
		{"6.18.44-cloud-amd64", "6.18"},
		{"7.0-rc1", "7.0"},
		{"4.18.0-553.el8", "4.18"},
		{"", "none"},
		{"6", "none"},
		{"6.", "none"},
		{".6", "none"},
		{"x.y", "none"},
		{"99999.1", "none"},
	} {
		got := "none"
		if v, ok := parseVersion(c.release); ok {
			got = v.String()
		}
		if got != c.want {
			t.Errorf("%q: got %s, want %s", c.release, got, c.want)
		}
	}
	for _, c := range []struct {
		a, b version
		want bool
	}{{version{6, 6}, version{6, 6}, true}, {version{6, 5}, version{6, 6}, false}, {version{7, 0}, version{6, 6}, true}, {version{5, 19}, version{6, 6}, false}} {
		if got := c.a.has(c.b); got != c.want {
			t.Errorf("%s has %s: %v", c.a, c.b, got)
		}
	}
}

const recordedStatus = `Name:	media-relay
Umask:	0077
State:	S (sleeping)
Tgid:	812
Ngid:	0
Pid:	812
PPid:	1
TracerPid:	0
Uid:	0	997	997	997
Gid:	0	996	996	996
FDSize:	64
Groups:	4 24
CapInh:	0000008000003000
CapPrm:	0000008000003000
CapEff:	0000008000003000
CapBnd:	000001ffffffffff
CapAmb:	0000008000003000
NoNewPrivs:	1
`

func TestParseStatus(t *testing.T) {
	got, err := parseStatus(recordedStatus)
	if err != nil {
		t.Fatal(err)
	}
	want := status{pid: 812, uid: 997, gid: 996, groups: []int{4, 24}, name: "media-relay", effective: 0x8000003000, bounding: 0x1ffffffffff, noNewPrivileges: true}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(status{})); diff != "" {
		t.Error(diff)
	}
	var has []int
	for c := range 64 {
		if got.effective.has(c) {
			has = append(has, c)
		}
	}
	if !slices.Equal(has, []int{capNetAdmin, capNetRaw, capBPF}) {
		t.Errorf("capabilities %v", has)
	}
	for _, bad := range []string{"", "Name:\tx\n", strings.Replace(recordedStatus, "CapEff:\t0000", "CapEff:\tx", 1), strings.Replace(recordedStatus, "Uid:", "Xid:", 1)} {
		if s, err := parseStatus(bad); err == nil {
			t.Errorf("%q is %+v", bad, s)
		}
	}
}

func TestParseLimit(t *testing.T) {
	const text = "Limit                     Soft Limit           Hard Limit           Units     \n" +
		"Max open files            1024                 524288               files     \n" +
		"Max locked memory         8388608              unlimited            bytes     \n" +
		"Max nice priority         0                    \n"
	for _, c := range []struct {
		name string
		want uint64
		ok   bool
	}{{"Max open files", 524288, true}, {"Max locked memory", unlimited, true}, {"Max nice priority", 0, false}, {"Max open", 0, false}, {"Max", 0, false}} {
		if got, ok := parseLimit(text, c.name); got != c.want || ok != c.ok {
			t.Errorf("%s: got %d %v, want %d %v", c.name, got, ok, c.want, c.ok)
		}
	}
}

func TestParseUnit(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"0::/system.slice/media-relay.service\n", "media-relay.service"},
		{"12:pids:/x.service\n1:name=systemd:/system.slice/chrony.service\n", "chrony.service"},
		{"0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.scope\n", ""},
		{"0::/\n", ""},
		{"", ""},
		{"nonsense", ""},
	} {
		if got := parseUnit(c.text); got != c.want {
			t.Errorf("%q: got %q, want %q", c.text, got, c.want)
		}
	}
}

func TestParseUDP(t *testing.T) {
	const udp = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1001: 0100007F:A028 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1234 2 0000000000000000 0
 1002: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 77 2 0000000000000000 0
`
	const udp6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1003: B80D0120000000000000000005000000:9C40 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     5        0 99 2 0000000000000000 0
 1004: 0000000000000000FFFF0000057100CB:9C41 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     5        0 100 2 0000000000000000 0
 broken: line
`
	a := netip.MustParseAddrPort
	for _, c := range []struct {
		text string
		want []udpSocket
	}{
		{udp, []udpSocket{{a("127.0.0.1:41000"), 0, 1234}, {a("0.0.0.0:67"), 101, 77}}},
		{udp6, []udpSocket{{a("[2001:db8::5]:40000"), 5, 99}, {a("203.0.113.5:40001"), 5, 100}}},
		{"", nil},
	} {
		if diff := cmp.Diff(c.want, parseUDP(c.text, binary.LittleEndian), cmp.AllowUnexported(udpSocket{}), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Error(diff)
		}
	}
	big := strings.NewReplacer("0100007F", "7F000001").Replace(udp)
	if got := parseUDP(big, binary.BigEndian); len(got) != 2 || got[0].local != a("127.0.0.1:41000") {
		t.Errorf("on a big-endian processor: %v", got)
	}
}

func TestParsePasswd(t *testing.T) {
	got := parsePasswd("root:x:0:0:root:/root:/bin/bash\n# remark\nbad:x:y:0::/:\nmediaproxy:x:997:996::/var/lib/mediaproxy:/usr/sbin/nologin\n")
	if !slices.Equal(got, []account{{"root", 0, 0}, {"mediaproxy", 997, 996}}) {
		t.Errorf("%v", got)
	}
}

func TestProcessors(t *testing.T) {
	for list, want := range map[string]int{"0\n": 1, "0-3\n": 4, "0-1,4,6-7": 5, "": 0, "x": 0, "3-1": 0, "0-99999": 0, "0-8191": 8192} {
		if got := parseProcessors(list); got != want {
			t.Errorf("%q: got %d, want %d", list, got, want)
		}
	}
	for n, want := range map[int]string{1: "1", 2: "3", 8: "ff", 32: "ffffffff", 40: "ff,ffffffff", 64: "ffffffff,ffffffff"} {
		if got := processorMask(n); got != want {
			t.Errorf("%d processors: got %s, want %s", n, got, want)
		}
	}
}

// What is understood can be written again, and means the same.
func FuzzParseUDP(f *testing.F) {
	f.Add(udpLine("203.0.113.5:41000", 33, 501) + udpLine("[2001:db8::5]:41001", 0, 502) + "x: y\n")
	f.Fuzz(func(t *testing.T, text string) {
		sockets := parseUDP(text, binary.NativeEndian)
		if len(sockets) > strings.Count(text, "\n")+1 {
			t.Fatalf("%d sockets from %q", len(sockets), text)
		}
		var again strings.Builder
		for _, s := range sockets {
			if !s.local.IsValid() || s.local.Addr().Is4In6() {
				t.Errorf("address %v from %q", s.local, text)
			}
			again.WriteString(udpLine(s.local.String(), s.uid, s.inode))
		}
		if got := parseUDP(again.String(), binary.NativeEndian); !slices.Equal(got, sockets) {
			t.Errorf("%v became %v", sockets, got)
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add(recordedStatus)
	f.Add("Pid:\t1\nUid:\t0\nGid:\t0\nCapEff:\tff\nCapBnd:\tff\nName:\tx\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseStatus(text)
		if err != nil {
			return
		}
		groups := strings.Trim(fmt.Sprint(s.groups), "[]")
		again, err := parseStatus(fmt.Sprintf("Name:\t%s\nPid:\t%d\nUid:\t%d\nGid:\t%d\nGroups:\t%s\nCapEff:\t%016x\nCapBnd:\t%016x\nNoNewPrivs:\t%d\n",
			s.name, s.pid, s.uid, s.gid, groups, s.effective, s.bounding, map[bool]int{true: 1}[s.noNewPrivileges]))
		if s.name == "" || strings.ContainsAny(s.name, "\r\n") {
			return // the kernel writes no such name
		}
		if err != nil || !cmp.Equal(s, again, cmp.AllowUnexported(status{}), cmpopts.EquateEmpty()) {
			t.Errorf("%+v became %+v, %v", s, again, err)
		}
	})
}

func FuzzParseSmall(f *testing.F) {
	for _, s := range []string{"6.1.0-13", "0-3,8", "0::/system.slice/a.service\n", "Max open files  1  unlimited  files\n", "root:x:0:0::/:\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if v, ok := parseVersion(text); ok {
			if again, ok := parseVersion(v.String() + ".0-x"); !ok || again != v {
				t.Errorf("%q is %v, then %v", text, v, again)
			}
		}
		n := parseProcessors(text)
		if n < 0 || n > maxProcessors {
			t.Errorf("%q: %d processors", text, n)
		}
		if n > 0 && parseProcessors(fmt.Sprintf("0-%d", n-1)) != n {
			t.Errorf("%q: %d processors, not the second time", text, n)
		}
		if unit := parseUnit(text); unit != "" && (parseUnit("0::/a/"+unit) != unit || strings.Contains(unit, "/")) {
			t.Errorf("%q: unit %q", text, unit)
		}
		if hard, ok := parseLimit(text, "Max open files"); ok && hard != unlimited && !strings.Contains(text, fmt.Sprint(hard)) {
			t.Errorf("%q: limit %d", text, hard)
		}
		for _, a := range parsePasswd(text) {
			if got := parsePasswd(fmt.Sprintf("%s:x:%d:%d:\n", a.name, a.uid, a.gid)); !slices.Equal(got, []account{a}) {
				t.Errorf("%v became %v", a, got)
			}
		}
	})
}
