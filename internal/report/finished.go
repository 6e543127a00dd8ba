package report

// TimedOut says whether a finished call counts as timed out: nobody hung up.
// A relay that was told to stop, or could not take a call over, ends calls the same way.
func (s *Session) TimedOut() bool {
	return s.Reason == ReasonTimeout || s.Reason == ReasonShutdown || s.Reason == ReasonNotRestored || s.Partial
}

// AllStreamsICE says whether ICE led all of a finished call's media around the
// relay. Such a call may still be alive and must not be ended.
func (s *Session) AllStreamsICE() bool { return s.Reason == ReasonUnused }

// Backend is how one back-end of accounting does.
type Backend struct {
	Name         string  `json:"name"`
	Waiting      uint64  `json:"waiting"`              // records
	OldestAge    float64 `json:"oldest_age"`           // seconds; 0: none waits
	Stored       uint64  `json:"stored"`               // since the start of the dispatcher
	Failed       uint64  `json:"failed"`               // tries since then
	LastError    string  `json:"last_error,omitempty"` // empty: there was none
	LastErrorAge float64 `json:"last_error_age,omitempty"`
}
