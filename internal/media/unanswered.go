//go:build !mediaproxy_control

package media

// learnsUnanswered is false in every program that is meant for use: unknown addresses
// are learned only once a call is answered. The build tag mediaproxy_control makes a
// relay without this rule, with which test/attack shows that it would notice.
const learnsUnanswered = false
