// Package doctor examines a host for a relay: may packets be moved inside the kernel,
// are the media ports free, do clock, limits and folders fit. It changes nothing.
//
//	host.go        what is asked of a host; host_linux.go and others ask a real one
//	facts.go       the answers, put together once; parse.go reads what /proc says
//	kernel.go      capabilities.go  devices.go  ports.go  system.go
//	               the checks: each is a function from facts to a result
//	print.go       results for people and for programs
package doctor

import (
	"fmt"
	"net/netip"
)

// Relay is what the configuration says about the relay that the host is for.
type Relay struct {
	Problems  error  // of the configuration; the rest is what could be read of it
	CheckWith string // the command that tells about Problems

	Addresses   []netip.Addr // none: neither configured nor found
	FirstPort   uint16
	LastPort    uint16
	FastPath    string // "auto", "tc", "clsact", "sk_lookup" or "off"
	BPFDir      string // empty: nothing outlives the relay
	StateDir    string
	Descriptors int // that it needs when all packets are moved in user space
}

func (r Relay) ports() string { return fmt.Sprintf("%d-%d", r.FirstPort, r.LastPort) }

// has tells whether a port is one for media.
func (r Relay) has(port uint16) bool { return port >= r.FirstPort && port <= r.LastPort }

// Verdict is how a check ended.
type Verdict uint8

const (
	Pass Verdict = iota
	Skip         // does not apply; what was found says why
	Warn         // a relay works, but not as well as it could
	Fail         // calls will suffer
)

var verdicts = [...]string{Pass: "pass", Skip: "skip", Warn: "warn", Fail: "fail"}

func (v Verdict) String() string { return verdicts[v] }

// MarshalText makes it a word in JSON.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Result is what one check found. Checks of a device come once for each.
type Result struct {
	Check   string  `json:"check"`
	Device  string  `json:"device,omitempty"`
	Verdict Verdict `json:"verdict"`
	Found   string  `json:"found"`
	Mend    string  `json:"mend,omitempty"` // a command where there is one
}

// outcome is a result without its name.
type outcome struct {
	verdict Verdict
	found   string
	mend    string
}

func pass(format string, args ...any) outcome { return outcome{Pass, fmt.Sprintf(format, args...), ""} }
func skip(format string, args ...any) outcome { return outcome{Skip, fmt.Sprintf(format, args...), ""} }

// warn, fail: what was found, and what mends it.
func warn(mend, format string, args ...any) outcome {
	return outcome{Warn, fmt.Sprintf(format, args...), mend}
}
func fail(mend, format string, args ...any) outcome {
	return outcome{Fail, fmt.Sprintf(format, args...), mend}
}

// Examine runs all checks.
func Examine(h Host, r Relay) []Result {
	f := gather(h, r)
	var results []Result
	add := func(name, device string, o outcome) {
		results = append(results, Result{name, device, o.verdict, o.found, o.mend})
	}
	add("configuration", "", configuration(f))
	add("kernel", "", kernel(f))
	add("capabilities", "", capabilities(f))
	add("memory lock", "", memoryLock(f))
	add("bpffs", "", bpffs(f))
	add("address", "", address(f))
	for _, d := range f.carriers() {
		add("hook", d.Name, hook(f, d))
	}
	for _, d := range f.receivers() {
		add("offloads", d.Name, offloads(d))
		add("queues", d.Name, queues(f, d))
	}
	add("processors", "", processors(f))
	add("ports", "", ports(f))
	add("reserved ports", "", reservedPorts(f))
	add("descriptors", "", descriptors(f))
	add("firewall", "", firewall(f))
	add("forwarding", "", forwarding(f))
	add("clock source", "", clockSource(f))
	add("wall clock", "", wallClock(f))
	add("state_dir", "", stateDir(f))
	return results
}

func configuration(f *facts) outcome {
	if f.relay.Problems != nil {
		return fail(f.relay.CheckWith, "it has mistakes; the rest of this uses what could be read")
	}
	return pass("media ports %s, fast_path = %s", f.relay.ports(), f.relay.FastPath)
}
