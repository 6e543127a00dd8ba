package dispatcher

import "example.org/mediaproxy/internal/report"

// expiryReason finds out why a call expired on a relay that does not say.
//
// Only streams that were still live count: a rejected or closed stream next to
// unselected candidates does not make the call a dead one. A call that was never
// answered has no streams and is neither. An ICE stream over which both parties
// had media relayed was really used, so its silence is a time-out.
func expiryReason(s report.Session) string {
	if s.StartTime == nil {
		return report.ReasonUnanswered
	}
	live, unselected := 0, 0
	for _, stream := range s.Streams {
		switch stream.Status {
		case report.StatusRejected, report.StatusClosed:
		case report.StatusActive, report.StatusOnHold:
			return report.ReasonShutdown // nothing expired: the relay was told to stop
		case report.StatusUnselectedICE:
			live++
			if stream.PostDialDelay == nil || stream.CallerPackets == 0 || stream.CalleePackets == 0 {
				unselected++
			}
		default:
			live++
		}
	}
	if live > 0 && live == unselected {
		return report.ReasonUnused
	}
	return report.ReasonTimeout
}
