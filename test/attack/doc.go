// Package attack tests that calls are safe from whoever else sends to the relay's
// ports: nobody but the parties hears a call, nobody else is heard in it, and the
// parties are, in every phase. The relay is the real program; phones (public ones, ones
// behind NATs, ones on a private network that the relay reaches) and attackers live in
// namespaces of their own:
//
//	a  an unrelated host: RTP to every port, from before the first call to the end
//	b  the same from the callers' /24
//	c  both kinds of address, to the ports of calls on hold, from then on
//	d  both kinds of address, RTCP and STUN to every port
//
// Two controls show that the meters work: a relay that learns from the first packet,
// and one built with the tag mediaproxy_control, which learns unknown addresses before
// a call is answered. Both have to be caught.
package attack
