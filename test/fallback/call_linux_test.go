package fallback

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/test/internal/module"
	"example.org/mediaproxy/test/internal/phone"
	"example.org/mediaproxy/test/internal/program"
)

// call is a call of one or two streams. Each stream has phones of its own.
type call struct {
	w       *world
	id      string
	number  uint32
	places  [2]*place
	module  *module.Client
	cseq    uint32
	streams []*stream
}

type stream struct {
	mediaType string
	phones    [2]*phone.Phone
	to        [2]netip.AddrPort // where each party was told to send
}

func (w *world) newCall(number int, name string, caller, callee *place) (*call, error) {
	c := &call{w: w, id: name + "@fallback.test", number: uint32(number) * 10, places: [2]*place{caller, callee}}
	var err error
	if c.module, err = w.module(); err != nil {
		return c, err
	}
	return c, c.add("audio")
}

// add opens the phones of one more stream.
func (c *call) add(mediaType string) error {
	s := &stream{mediaType: mediaType}
	c.streams = append(c.streams, s)
	c.number++
	for side, at := range c.places {
		p, err := c.w.studio.New(at.host, at.ip, phone.ID{Call: c.number, Side: uint8(side)}, phone.RTCP{})
		if err != nil {
			return err
		}
		s.phones[side] = p
	}
	return nil
}

func (c *call) close() {
	if c.module != nil {
		c.module.Close()
	}
	for _, s := range c.streams {
		for _, p := range s.phones {
			if p != nil {
				p.Close()
			}
		}
	}
}

// exchange is an offer of the caller and its answer, with these directions.
func (c *call) exchange(offered, answered string) error {
	c.cseq++
	if err := c.say(control.KindRequest, 0, offered); err != nil {
		return err
	}
	return c.say(control.KindReply, 1, answered)
}

// say sends one party's SDP and notes where the other one has to send.
func (c *call) say(kind control.Kind, side int, direction string) error {
	u := control.Update{
		Kind: kind, CallID: c.id, FromTag: "caller-tag", FromURI: "caller@fallback.test", ToURI: "callee@fallback.test", CSeq: c.cseq,
		UserAgent: "phone", HasMedia: true,
	}
	if kind == control.KindReply || c.cseq > 1 {
		u.ToTag = "callee-tag"
	}
	u.Signaling.IP = c.places[side].public
	for _, s := range c.streams {
		sdp := s.phones[side].Addr()
		u.Media = append(u.Media, control.Media{Type: s.mediaType, Addr: sdp.Addr(), Port: sdp.Port(), Direction: direction})
	}
	answer, err := c.module.Update(u)
	if err != nil {
		return err
	}
	if len(answer.Ports) != len(c.streams) {
		return fmt.Errorf("the answer has the ports %v for %d streams", answer.Ports, len(c.streams))
	}
	for i, s := range c.streams {
		s.to[1-side] = netip.AddrPortFrom(answer.IP, answer.Ports[i])
	}
	return nil
}

func (c *call) speak() {
	for _, s := range c.streams {
		for side, p := range s.phones {
			p.Speak(s.to[side])
		}
	}
}

func (c *call) pause() {
	for _, s := range c.streams {
		for _, p := range s.phones {
			p.Pause()
		}
	}
}

// enough packets of a phase for it to mean something: a second of audio.
const enough = 50

// talk waits until both parties of every stream have heard enough of each other in
// this phase.
func (c *call) talk(ctx context.Context, phase uint8) error {
	for _, s := range c.streams {
		for _, p := range s.phones {
			p.Phase(phase)
		}
	}
	for _, s := range c.streams {
		for side, p := range s.phones {
			if until(ctx, func() bool { return p.Counts().Heard[phase] >= enough }) != nil {
				return fmt.Errorf("phase %d: party %d heard %d packets of %s, of %d that were sent", phase, side, p.Counts().Heard[phase],
					s.mediaType, s.phones[1-side].Counts().Sent[phase])
			}
		}
	}
	return nil
}

// settle ends a phase and fails if a packet of it did not arrive, or one arrived that
// was for somebody else.
func (c *call) settle(ctx context.Context, phase, next uint8) error {
	for _, s := range c.streams {
		for _, p := range s.phones {
			p.Phase(next)
		}
	}
	for _, s := range c.streams {
		for side, p := range s.phones {
			sent := s.phones[1-side].Counts().Sent[phase]
			if until(ctx, func() bool { return p.Counts().Heard[phase] >= sent }) != nil {
				return fmt.Errorf("phase %d: party %d heard %d packets of %s, of %d that were sent", phase, side, p.Counts().Heard[phase], s.mediaType, sent)
			}
			if n := p.Counts().Strays; n > 0 {
				return fmt.Errorf("party %d got %d packets that were not for it, the first %s", side, n, p.Stray())
			}
		}
	}
	return nil
}

// legs asks the operators' interface about the call.
func (c *call) legs() (legs []report.Leg, err error) {
	explanations, err := program.Documents[report.Explanation](c.w.pair, "explain", c.id)
	for _, e := range explanations {
		for _, s := range e.Streams {
			if s.Status == report.StatusActive {
				legs = append(legs, s.Legs...)
			}
		}
	}
	return legs, err
}

// movedBy waits until every RTP leg of the call is moved in one way, for one reason.
func (c *call) movedBy(ctx context.Context, mover, notKernel string) error {
	var legs []report.Leg
	var problem error
	err := every(ctx, 50*time.Millisecond, func() bool {
		legs, problem = c.legs()
		for _, l := range legs {
			if l.Path == "RTP" && (l.Mover != mover || l.NotKernel != notKernel) {
				return false
			}
		}
		return len(legs) == 4*len(c.streams)
	})
	if err != nil {
		return fmt.Errorf("not moved by %s (%q): %+v %w", mover, notKernel, legs, problem)
	}
	// The statistics of the call say the same.
	sessions, err := program.Documents[report.Session](c.w.pair, "session", c.id)
	if err != nil || len(sessions) != 1 {
		return fmt.Errorf("session: %+v %w", sessions, err)
	}
	for _, s := range sessions[0].Streams {
		if s.Status == report.StatusActive && (s.Caller == nil || s.Caller.Mover != mover || s.Callee == nil || s.Callee.Mover != mover) {
			return fmt.Errorf("not moved by %s: %+v", mover, s)
		}
	}
	return nil
}

// hangUp ends the call.
func (c *call) hangUp() error {
	return c.module.Remove(control.Remove{CallID: c.id, FromTag: "caller-tag", ToTag: "callee-tag"})
}

// heard is how many packets the parties have heard of each other.
func (c *call) heard() (n uint64) {
	for _, s := range c.streams {
		for _, p := range s.phones {
			for _, heard := range p.Counts().Heard {
				n += heard
			}
		}
	}
	return n
}
