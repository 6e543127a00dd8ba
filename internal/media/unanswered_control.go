//go:build mediaproxy_control

package media

const learnsUnanswered = true
