// Package spiral has calls pass the same relay twice: once through a B2BUA that makes
// a second dialog of them, so that the relay's own port is the peer of another of its
// streams; and once as a true spiral, where the second pass of the same dialog finds
// the relay's ports already in the SDP.
package spiral
