package attack

import (
	"testing"
	"time"

	"example.org/mediaproxy/test/internal/netlab"
	"example.org/mediaproxy/test/internal/program"
)

// TestControls runs relays that are known to be unsafe. If the meters do not catch
// them, they would not catch a fault of the real one either.
func TestControls(t *testing.T) {
	netlab.Needs(t)
	for _, control := range []struct {
		name  string
		tags  []string
		relay program.Settings
		deaf  bool // parties also have to miss each other
	}{
		{name: "first packet", relay: program.Settings{"fast_path": kernel, "address_learning": "first-packet"}, deaf: true},
		{name: "without the answer condition", relay: program.Settings{"fast_path": userSpace}, tags: []string{"mediaproxy_control"}},
	} {
		t.Run(control.name, func(t *testing.T) {
			w := newWorld(t, program.Build(t, control.tags...), control.relay)
			before := w.metered()
			var plans []plan
			for i := range 27 {
				p := w.planFor(i)
				p.len.ring, p.len.talk = time.Second, 1500*time.Millisecond
				p.hold = false
				plans = append(plans, p)
			}
			r := w.runCalls(plans, (*call).run)
			heard, hearing, deaf := w.metered()-before, 0, 0
			for _, c := range r.wrong {
				if c.strays() > 0 {
					hearing++
				}
				if c.missed {
					deaf++
				}
			}
			t.Logf("%d calls of which %d not judged: attackers heard %d packets of %d calls; in %d calls a phone heard an attacker; in %d the parties missed each other",
				len(plans), len(r.slow), heard, tapped(r.wrong), hearing, deaf)
			if heard == 0 || tapped(r.wrong) == 0 {
				t.Error("no attacker heard a call: the meters are blind")
			}
			if hearing == 0 {
				t.Error("no phone heard an attacker: the phones are blind")
			}
			if control.deaf && deaf == 0 {
				t.Error("all parties heard each other: the phases are blind")
			}
		})
	}
}

// tapped counts calls of which an attacker heard something.
func tapped(calls []*call) (n int) {
	for _, c := range calls {
		if leaked([]*call{c}) > 0 {
			n++
		}
	}
	return n
}
