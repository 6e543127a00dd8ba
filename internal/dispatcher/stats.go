package dispatcher

import "sync/atomic"

// Stats counts what happened since the start, and what is there now.
type Stats struct {
	Relays    int // connected
	Calls     int // known and alive, lost ones included
	LostCalls int // whose relay is not connected
	Modules   int // connections on the module's socket

	Updates       uint64 // answered with ports
	Removes       uint64 // answered removed
	Errors        uint64 // requests answered error
	BadRequests   uint64 // of those, requests that could not be read
	Failovers     uint64 // relays given up for the next one during a set-up
	Cancelled     uint64 // late allocations taken back
	Moved         uint64 // known calls placed anew because their relay was gone
	Purged        uint64 // calls dropped because their relay no longer had them
	Adopted       uint64 // calls learned from a relay
	Released      uint64 // calls that another dispatcher took over
	Elsewhere     uint64 // requests that another dispatcher served, whose relays have the call
	ForPeers      uint64 // requests served for other dispatchers
	Located       uint64 // calls of other dispatchers found on a relay
	Hinted        uint64 // of those, on the relay that the shared map named
	Finished      uint64 // records handed to the Finished hook with success
	Partial       uint64 // of those, records in place of a lost relay's
	FinishedAgain uint64 // records that had been handed over before
	FinishErrors  uint64 // times the Finished hook failed
	RelayTimeouts uint64 // commands without an answer in time
	Panics        uint64 // caught while serving one request
}

// counters is Stats while it is being counted.
type counters struct {
	updates, removes, errors, badRequests, failovers, cancelled, moved, purged, adopted, released, elsewhere, forPeers, located, hinted,
	finished, partial, finishedAgain, finishErrors, relayTimeouts, panics atomic.Uint64
	modules atomic.Int64
}

// Stats returns the present counts.
func (d *Dispatcher) Stats() Stats {
	c := &d.count
	s := Stats{
		Modules: int(c.modules.Load()),
		Updates: c.updates.Load(), Removes: c.removes.Load(), Errors: c.errors.Load(), BadRequests: c.badRequests.Load(),
		Failovers: c.failovers.Load(), Cancelled: c.cancelled.Load(), Moved: c.moved.Load(), Purged: c.purged.Load(),
		Adopted: c.adopted.Load(), Released: c.released.Load(), Elsewhere: c.elsewhere.Load(), ForPeers: c.forPeers.Load(), Located: c.located.Load(), Hinted: c.hinted.Load(), Finished: c.finished.Load(), Partial: c.partial.Load(), FinishedAgain: c.finishedAgain.Load(),
		FinishErrors: c.finishErrors.Load(), RelayTimeouts: c.relayTimeouts.Load(), Panics: c.panics.Load(),
	}
	s.Relays = d.registry.connected()
	s.Calls, s.LostCalls = d.calls.counts()
	return s
}
