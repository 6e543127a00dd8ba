package doctor

import (
	"fmt"
	"strings"
)

// Numbers of linux/capability.h.
const (
	capNetAdmin    = 12
	capNetRaw      = 13
	capSysResource = 24
	capBPF         = 39
)

// wanted are the capabilities of a relay.
var wanted = []struct {
	number int
	name   string
}{{capBPF, "BPF"}, {capNetAdmin, "NET_ADMIN"}, {capNetRaw, "NET_RAW"}}

// judgedName is whose rights and limits are judged.
func (f *facts) judgedName() string {
	if len(f.running) > 0 {
		return fmt.Sprintf("the running relay (pid %d)", f.judged.pid)
	}
	return "this process"
}

func capabilities(f *facts) outcome {
	if why := f.noBPF(); why != "" {
		return skip("%s", why)
	}
	p := f.judged
	if p.pid == 0 {
		return skip("/proc does not tell which this process has")
	}
	if p.ownUsers {
		return f.lacking("run it as a user of the host: for a container --userns=host",
			"%s is in a user namespace, where CAP_BPF does not count: %s", f.judgedName(), instead)
	}
	missing := p.missing()
	if len(missing) == 0 {
		return pass("%s has CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW%s", f.judgedName(), f.alsoOf())
	}
	list := "CAP_" + strings.Join(missing, ", CAP_")
	if len(missing) == 1 && missing[0] == "NET_RAW" && f.relay.FastPath != "sk_lookup" {
		return warn(p.mendCapabilities(missing), "%s lacks %s: the slow path has a socket for each port", f.judgedName(), list)
	}
	return f.lacking(p.mendCapabilities(missing), "%s lacks %s: %s", f.judgedName(), list, instead)
}

// alsoOf says what else one should know when this process has all of them.
func (f *facts) alsoOf() string {
	if len(f.running) == 0 && f.user.uid != f.self.uid {
		return "; user " + f.user.name + " needs them, too (AmbientCapabilities= of its unit)"
	}
	if f.unprivileged != "" && f.unprivileged != "0" {
		return fmt.Sprintf("; kernel.unprivileged_bpf_disabled = %s is no obstacle", f.unprivileged)
	}
	return ""
}

func (p process) missing() []string {
	var out []string
	for _, w := range wanted {
		if !p.effective.has(w.number) {
			out = append(out, w.name)
		}
	}
	return out
}

// mendCapabilities depends on what keeps them from the process: a unit, a container, or
// just that nobody gave them.
func (p process) mendCapabilities(missing []string) string {
	if p.unit != "" {
		all := "CAP_BPF CAP_NET_ADMIN CAP_NET_RAW"
		return dropIn(p.unit, "AmbientCapabilities="+all, "CapabilityBoundingSet="+all)
	}
	bounded := p.noNewPrivileges // then the file's capabilities do not count, either
	for _, w := range wanted {
		bounded = bounded || !p.bounding.has(w.number)
	}
	if bounded {
		return "in a container: --cap-add " + strings.Join(missing, " --cap-add ")
	}
	return "setcap cap_bpf,cap_net_admin,cap_net_raw+ep " + p.exe
}

// mendLimit raises a limit, by the names it has in a unit and for prlimit: of the unit, or
// of the shell and what is started from it.
func (p process) mendLimit(unitName, option, value string) string {
	if p.unit != "" {
		return dropIn(p.unit, "Limit"+unitName+"="+value)
	}
	if value == "infinity" {
		value = "unlimited"
	}
	if !p.bounding.has(capSysResource) {
		return fmt.Sprintf("in a container: --ulimit %[1]s=%[2]s:%[2]s", option, strings.Replace(value, "unlimited", "-1", 1))
	}
	return fmt.Sprintf("prlimit --pid $$ --%[1]s=%[2]s:%[2]s", option, value)
}

// dropIn adds lines to a unit. The relay is not restarted: that is for when calls allow it.
func dropIn(unit string, lines ...string) string {
	folder := "/etc/systemd/system/" + unit + ".d"
	return fmt.Sprintf(`mkdir -p %[1]s && printf '%%s\n' '[Service]' '%[2]s' > %[1]s/doctor-%[3]s.conf && systemctl daemon-reload`,
		folder, strings.Join(lines, "' '"), strings.ToLower(lines[0][:strings.IndexByte(lines[0], '=')]))
}
