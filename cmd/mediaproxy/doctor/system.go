package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// firewall: rules do not see decided streams. That is no fault, but people should know.
func firewall(f *facts) outcome {
	note := "decided streams bypass INPUT, FORWARD and conntrack"
	if f.noKernelPath() != "" {
		note = "all media passes INPUT"
	}
	var open []string
	for _, c := range f.chains {
		if c.Rules > 0 || c.Drops {
			open = append(open, fmt.Sprintf("nft insert rule %s %s %s udp dport %s accept", c.Family, c.Table, c.Name, f.relay.ports()))
		}
	}
	if slices.Contains(f.legacy, "filter") {
		open = append(open, fmt.Sprintf("iptables-legacy -I INPUT -p udp --dport %d:%d -j ACCEPT", f.relay.FirstPort, f.relay.LastPort))
	}
	switch {
	case len(open) == 0 && f.chainsErr != nil:
		return skip("the rules cannot be read (%v); %s", f.chainsErr, note)
	case len(open) == 0:
		return pass("no rules for what comes in; %s", note)
	case f.noKernelPath() != "":
		return pass("%s, so it has to be open: %s", note, strings.Join(open, " && "))
	}
	return pass("%s; for the others: %s", note, strings.Join(open, " && "))
}

// forwarding: people of other relays look for this setting.
func forwarding(f *facts) outcome {
	if f.ipForward == "" {
		return skip("net.ipv4.ip_forward cannot be read; it is not needed")
	}
	return pass("net.ipv4.ip_forward = %s; it is not needed", f.ipForward)
}

// slowClocks cost a microsecond or more for each look at the time.
var slowClocks = []string{"hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies"}

func clockSource(f *facts) outcome {
	switch {
	case f.clock == "":
		return skip("/sys does not tell")
	case !slices.Contains(slowClocks, f.clock):
		return pass("%s", f.clock)
	}
	for _, c := range f.clocks {
		if !slices.Contains(slowClocks, c) {
			return warn("echo "+c+" > /sys/devices/system/clocksource/clocksource0/current_clocksource", "%s is slow to read, %s is there", f.clock, c)
		}
	}
	return warn("add tsc=reliable to the kernel's command line if this processor's clock is steady", "%s is slow to read, and there is no other", f.clock)
}

func wallClock(f *facts) outcome {
	switch {
	case f.clockErr != nil:
		return skip("the kernel does not tell: %v", f.clockErr)
	case f.synchronised:
		return pass("synchronised")
	}
	mend := "install and start an NTP client: chrony, for example"
	if f.systemd {
		mend = "timedatectl set-ntp true"
	}
	return warn(mend, "nobody sets it right: start times in accounting will drift")
}

// smallDisk: below it there is no room for what the relay keeps over restarts.
const smallDisk = 100 << 20

func stateDir(f *facts) outcome {
	d := f.state
	switch {
	case d.ReadOnly:
		return fail("mount -o remount,rw "+d.last().Path, "%s is on a read-only file system", d.Path)
	case d.exists() && !d.writableBy(f.user):
		return fail("chown "+f.user.name+" "+d.Path, "user %s may not write to %s", f.user.name, d.Path)
	case !d.exists() && !d.writableBy(f.user):
		return warn("install -d -m 700 -o "+f.user.name+" "+d.Path, "there is no %s, and user %s may not make it", d.Path, f.user.name)
	case d.Free < smallDisk:
		return warn("du -xhd1 "+d.last().Path+" | sort -h", "%s has only %s free", d.Path, megabytes(d.Free))
	case !d.exists():
		return pass("%s will be made, %s free", d.Path, megabytes(d.Free))
	}
	return pass("%s, %s free", d.Path, megabytes(d.Free))
}

func megabytes(bytes uint64) string {
	if bytes >= 10<<30 {
		return fmt.Sprintf("%d GiB", bytes>>30)
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}
