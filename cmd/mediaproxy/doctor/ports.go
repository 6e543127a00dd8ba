package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"example.org/mediaproxy/internal/media"
)

// namedOwners is how many programs are named; the rest is counted.
const namedOwners = 3

// ports: what other programs have of the range is lost for calls.
func ports(f *facts) outcome {
	if len(f.taken) == 0 {
		return pass("no other program has one of %s", f.relay.ports())
	}
	type owner struct {
		name  string
		unit  string
		ports []string
	}
	var owners []owner
	hidden := 0
	for _, t := range f.taken {
		name := fmt.Sprintf("%s (pid %d)", t.name, t.pid)
		switch {
		case t.pid == 0 && f.self.uid == 0: // tunnels such as WireGuard and VXLAN
			name = "the kernel, or a program outside of this container,"
		case t.pid == 0:
			name = fmt.Sprintf("a program of user %d", t.uid)
			hidden++
		}
		i := slices.IndexFunc(owners, func(o owner) bool { return o.name == name })
		if i < 0 {
			owners = append(owners, owner{name: name, unit: t.unit})
			i = len(owners) - 1
		}
		if port := strconv.Itoa(int(t.local.Port())); !slices.Contains(owners[i].ports, port) {
			owners[i].ports = append(owners[i].ports, port)
		}
	}
	var found, units []string
	for _, o := range owners {
		found = append(found, o.name+" has "+few(o.ports, " ", 3))
		if o.unit != "" && !slices.Contains(units, o.unit) {
			units = append(units, o.unit)
		}
	}
	var mend string
	switch {
	case hidden > 0:
		mend = "run mediaproxy doctor as root: it then names the program"
	case len(units) == len(owners):
		// The next automatic bind avoids what is reserved.
		mend = "systemctl restart " + strings.Join(units, " ")
		if merged, changed := f.addReserved(); changed {
			mend = reserve(merged) + " && " + mend
		}
	default:
		mend = "give that program another port, or set port_range to ports that are free"
	}
	return warn(mend, "%s: no call gets these ports", few(found, ", ", namedOwners))
}

// few joins the first words of a list and counts the rest.
func few(list []string, separator string, n int) string {
	if len(list) <= n {
		return strings.Join(list, separator)
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:n], separator), len(list)-n)
}

func (f *facts) addReserved() (merged string, changed bool) {
	return media.AddReserved(f.reserved, f.relay.FirstPort, f.relay.LastPort)
}

func reserve(list string) string { return "sysctl -w net.ipv4.ip_local_reserved_ports=" + list }

// reservedPorts: a program that lets the system choose a port must not get one for media.
func reservedPorts(f *facts) outcome {
	if first, last, ok := strings.Cut(strings.Join(strings.Fields(f.automatic), "-"), "-"); ok {
		a, err1 := strconv.Atoi(first)
		b, err2 := strconv.Atoi(last)
		if err1 == nil && err2 == nil && (b < int(f.relay.FirstPort) || a > int(f.relay.LastPort)) {
			return pass("not needed: the system hands out %d-%d", a, b)
		}
	}
	merged, changed := f.addReserved()
	if !changed {
		return pass("%s is in net.ipv4.ip_local_reserved_ports", f.relay.ports())
	}
	return warn(reserve(merged), "any program that lets the system choose a port may get one of %s", f.relay.ports())
}

// descriptors are what bounds a relay that moves packets in user space.
func descriptors(f *facts) outcome {
	limit := min(f.judged.files, f.openFiles)
	need := uint64(f.relay.Descriptors)
	switch {
	case f.judged.pid == 0:
		return skip("/proc does not tell the limit")
	case limit >= need:
		return pass("%s may have %d, all ports in user space need %d", f.judgedName(), limit, need)
	case f.judged.effective.has(capSysResource) && f.openFiles >= need:
		return pass("%s may raise its limit of %d to the %d that all ports in user space need", f.judgedName(), limit, need)
	case f.openFiles < need:
		return warn(fmt.Sprintf("sysctl -w fs.nr_open=%d", need), "no process may have more than %d, all ports in user space need %d: fewer calls fit", f.openFiles, need)
	}
	return warn(f.judged.mendLimit("NOFILE", "nofile", strconv.FormatUint(need, 10)),
		"%s may have %d, all ports in user space need %d: fewer calls fit there", f.judgedName(), limit, need)
}
