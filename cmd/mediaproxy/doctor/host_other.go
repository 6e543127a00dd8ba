//go:build !linux

package doctor

import "example.org/mediaproxy/internal/forward"

// This returns the host that the program runs on.
func This() (Host, error) { return nil, forward.ErrUnsupported }
