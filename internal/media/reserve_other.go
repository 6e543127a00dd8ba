//go:build !linux

package media

import "example.org/mediaproxy/internal/forward"

// ReservePorts needs Linux, as relaying does.
func ReservePorts(first, last uint16) error { return forward.ErrUnsupported }
