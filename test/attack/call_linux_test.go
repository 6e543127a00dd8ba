package attack

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/test/internal/phone"
)

// lengths of the phases of calls.
type lengths struct {
	ring, talk, hold, resumed time.Duration
}

const (
	// A phone begins to send within promptly after its answer or resume.
	promptly = 300 * time.Millisecond
	// What is left of it for the delays of a busy machine.
	margin = 80 * time.Millisecond
	// The parties then hear each other within this; else the machine was too busy to
	// judge by, because the relay may have heard a phone later than it sent.
	transit = 150 * time.Millisecond
	// Later on a relay that is kept from work for this long may take a phone for silent.
	stall = time.Second
)

// plan is what a call does.
type plan struct {
	number int
	places [2]*place // of caller and callee
	len    lengths
	early  bool // media while it rings
	hold   bool // held and resumed
	holder int  // the party that holds
	// newPort: after hold the holder offers another port. Else it sends from another
	// port than its SDP says, as after a NAT lost its binding; that happens behind
	// NATs only.
	newPort bool
	rtcp    [2]phone.RTCP
	// late makes a party begin to send this long after the answer.
	late [2]time.Duration
}

// call is a running call.
type call struct {
	plan
	w      *world
	rng    *rand.Rand
	phones [2]*phone.Phone
	to     [2]netip.AddrPort // where each party's phone was told to send
	cseq   [2]uint32
	ports  map[uint16]bool
	asked  time.Time     // when the last update was sent
	slow   []error       // why the machine, not the relay, is to blame
	wrong  []error       // what did not go as it should
	missed bool          // a party did not hear the other
	failed bool          // it could not go on
	gap    time.Duration // the longest that a party heard nothing around a move

	mu        sync.Mutex // guards what follows
	leaks     int
	firstLeak string
}

func (c *call) leak(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaks == 0 {
		c.firstLeak = what
	}
	c.leaks++
}

// newCall opens the phones. The call is there also on an error.
func (w *world) newCall(p plan) (*call, error) {
	c := &call{plan: p, w: w, rng: rand.New(rand.NewPCG(uint64(p.number), 1)), ports: map[uint16]bool{}}
	for side := range c.phones {
		place := p.places[side]
		ph, err := w.studio.New(place.host, place.ip(p.number), phone.ID{Call: uint32(p.number), Side: uint8(side)}, p.rtcp[side])
		if err != nil {
			return c, err
		}
		c.phones[side] = ph
	}
	return c, nil
}

func (c *call) close() {
	for _, s := range c.w.onHold {
		for p := range c.ports {
			s.spare(p)
		}
	}
	for _, p := range c.phones {
		if p != nil {
			p.Close()
		}
	}
}

func (c *call) tag(side int) string { return fmt.Sprintf("tag-%d-%d", c.number, side) }
func (c *call) id() string          { return fmt.Sprintf("call-%d@attack.test", c.number) }

// pass lets time go by that belongs to the call.
func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// say sends one party's SDP in a request, or in the answer to the other's, and notes
// where the other one has to send. final is false for answers below 200.
func (c *call) say(kind control.Kind, side int, cseq uint32, direction string, final bool) error {
	asker := side // whose request it is, or belongs to
	if kind == control.KindReply {
		asker = 1 - side
	}
	p := c.places[side]
	u := control.Update{
		Kind: kind, CallID: c.id(), CSeq: cseq, DialogID: fmt.Sprintf("%d:%d", c.number%4096, c.number+77), FromURI: c.tag(asker) + "@attack.test",
		ToURI: c.tag(1-asker) + "@attack.test", FromTag: c.tag(asker), UserAgent: fmt.Sprintf("phone in %s", p.name), HasMedia: true,
	}
	if final {
		u.ToTag = c.tag(1 - asker)
	}
	sdp := c.phones[side].Addr()
	u.Signaling.IP = p.sip
	if !p.sip.IsValid() {
		u.Signaling.IP = sdp.Addr()
	}
	u.Media = []control.Media{{Type: "audio", Addr: sdp.Addr(), Port: sdp.Port(), Direction: direction}}
	m := <-c.w.clients
	c.asked = time.Now()
	answer, err := m.Update(u)
	c.w.clients <- m
	if err != nil {
		return err
	}
	if len(answer.Ports) != 1 || answer.Ports[0] == 0 {
		return fmt.Errorf("%s: the answer has ports %v, want one", c.id(), answer.Ports)
	}
	port := answer.Ports[0]
	for _, p := range []uint16{port, port + 1} {
		c.ports[p] = true
		c.w.owners.Store(p, c)
	}
	c.to[1-side] = netip.AddrPortFrom(answer.IP, port)
	return nil
}

// exchange is an offer and its answer.
func (c *call) exchange(offerer int, offered, answered string) error {
	c.cseq[offerer]++
	if err := c.say(control.KindRequest, offerer, c.cseq[offerer], offered, true); err != nil {
		return err
	}
	return c.say(control.KindReply, 1-offerer, c.cseq[offerer], answered, true)
}

// speak makes both phones send, each after a moment of its own.
func (c *call) speak(ctx context.Context, late [2]time.Duration) error {
	asked := c.asked
	var after [2]time.Duration
	for side := range after {
		after[side] = late[side] + time.Duration(c.rng.Int64N(int64(promptly-margin)))
	}
	first := 0
	if after[1] < after[0] {
		first = 1
	}
	for _, side := range []int{first, 1 - first} {
		if err := pass(ctx, time.Until(asked.Add(after[side]))); err != nil {
			return err
		}
		c.phones[side].Speak(c.to[side])
	}
	for side, p := range c.phones {
		if err := until(ctx, 5*time.Second, func() bool { return !p.Spoke().IsZero() }); err != nil {
			return fmt.Errorf("phone %d does not send: %w", side, err)
		}
		if d := p.Spoke().Sub(asked); d > late[side]+promptly {
			c.slow = append(c.slow, fmt.Errorf("party %d sent %v after it could", side, d))
		}
	}
	for side, p := range c.phones {
		// One that hears nothing at all fails in the phase that begins now.
		until(ctx, time.Until(c.phones[1-side].Spoke().Add(stall)), func() bool { return !p.FirstHeard().IsZero() })
		if d := p.FirstHeard().Sub(asked); d > max(late[0], late[1])+promptly+transit {
			c.slow = append(c.slow, fmt.Errorf("party %d heard the other %v after both could send", side, d))
		}
	}
	return nil
}

// until waits for a condition.
func until(ctx context.Context, patience time.Duration, cond func() bool) error {
	for deadline := time.Now().Add(patience); !cond(); {
		if time.Now().After(deadline) {
			return context.DeadlineExceeded
		}
		if err := pass(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// leastPackets in a phase: fewer prove little.
const leastPackets = 20

// talk lets the parties talk and notes if one did not hear the other: nine of ten
// packets must arrive, however late.
func (c *call) talk(ctx context.Context, phase uint8, length time.Duration) error {
	for _, p := range c.phones {
		p.Phase(phase)
	}
	if err := pass(ctx, length); err != nil {
		return err
	}
	var sent [2]uint64
	for side, p := range c.phones {
		if err := until(ctx, 5*time.Second, func() bool { return p.Counts().Sent[phase] >= leastPackets }); err != nil {
			return fmt.Errorf("party %d sent only %d packets in phase %s", side, p.Counts().Sent[phase], phaseNames[phase])
		}
		p.Phase(0)
		sent[side] = p.Counts().Sent[phase]
	}
	for side, p := range c.phones {
		want := sent[1-side]
		if until(ctx, 2*stall, func() bool { return p.Counts().Heard[phase]*10 >= want*9 }) != nil {
			c.missed = true
			c.wrong = append(c.wrong, fmt.Errorf("in phase %s party %d heard %d of %d packets", phaseNames[phase], side, p.Counts().Heard[phase], want))
		}
	}
	return ctx.Err()
}

// Phases in which the parties must hear each other.
const (
	phaseEarly = iota + 1
	phaseTalk
	phaseResumed
	phaseMoved
)

var phaseNames = [...]string{"none", "early media", "talk", "after hold", "after a move"}

// establish makes the call up to the answer, with both parties sending.
func (c *call) establish(ctx context.Context) error {
	c.cseq = [2]uint32{1, 100}
	if err := c.say(control.KindRequest, 0, 1, "sendrecv", false); err != nil {
		return err
	}
	if err := c.ring(ctx); err != nil {
		return err
	}
	if err := c.say(control.KindReply, 1, 1, "sendrecv", true); err != nil {
		return err
	}
	if c.early {
		return nil
	}
	return c.speak(ctx, c.late)
}

// run makes the whole call. Its error is what kept it from going on.
func (c *call) run(ctx context.Context) error {
	if err := c.establish(ctx); err != nil {
		return err
	}
	if err := c.talk(ctx, phaseTalk, c.len.talk); err != nil {
		return err
	}
	if c.hold {
		if err := c.holdAndResume(ctx); err != nil {
			return err
		}
	}
	return c.hangUp()
}

func (c *call) ring(ctx context.Context) error {
	if !c.early {
		return pass(ctx, c.len.ring)
	}
	if err := c.say(control.KindReply, 1, 1, "sendrecv", false); err != nil {
		return err
	}
	if err := c.speak(ctx, [2]time.Duration{}); err != nil {
		return err
	}
	return c.talk(ctx, phaseEarly, c.len.ring)
}

func (c *call) holdAndResume(ctx context.Context) error {
	if err := c.exchange(c.holder, "sendonly", "recvonly"); err != nil {
		return err
	}
	for _, p := range c.phones {
		p.Pause()
	}
	for _, s := range c.w.onHold {
		for p := range c.ports {
			s.aim(p)
		}
	}
	if err := pass(ctx, c.len.hold); err != nil {
		return err
	}
	for side, p := range c.phones {
		p.NewSource()
		place := c.places[side]
		if place.router != nil || c.newPort && side == c.holder {
			sdp := p.Addr()
			if err := p.Move(place.host, sdp.Addr()); err != nil {
				return err
			}
			if !(c.newPort && side == c.holder) {
				p.Claim(sdp)
			}
		}
	}
	if err := c.exchange(c.holder, "sendrecv", "sendrecv"); err != nil {
		return err
	}
	if err := c.speak(ctx, [2]time.Duration{}); err != nil {
		return err
	}
	return c.talk(ctx, phaseResumed, c.len.resumed)
}

// hangUp ends the call at the relay while the phones still send, as phones do.
func (c *call) hangUp() error {
	m := <-c.w.clients
	err := m.Remove(control.Remove{CallID: c.id(), FromTag: c.tag(c.number % 2), ToTag: c.tag(1 - c.number%2)})
	c.w.clients <- m
	for _, p := range c.phones {
		p.Pause()
	}
	return err
}

// judge sums up a call that is over.
func (c *call) judge() {
	for side, p := range c.phones {
		if p == nil {
			continue
		}
		if n := p.Counts().Strays; n > 0 {
			c.wrong = append(c.wrong, fmt.Errorf("party %d got %d packets that were not for it, the first %s", side, n, p.Stray()))
		}
		if d := p.LongestTransit(); d > c.patience() {
			c.slow = append(c.slow, fmt.Errorf("a packet to party %d took %v", side, d))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaks > 0 {
		c.wrong = append(c.wrong, fmt.Errorf("%d packets went to attackers, the first: %s", c.leaks, c.firstLeak))
	}
}

// patience is how long a packet may take in a call that is judged. What is measured
// around a move has less to spare.
func (c *call) patience() time.Duration {
	if c.gap > 0 {
		return transit
	}
	return stall
}

// strays is how many packets phones got that were not for them.
func (c *call) strays() (n uint64) {
	for _, p := range c.phones {
		if p != nil {
			n += p.Counts().Strays
		}
	}
	return n
}

func (c *call) String() string {
	return fmt.Sprintf("%s (%s to %s)", c.id(), c.places[0].name, c.places[1].name)
}
