//go:build !linux

package forward

import "log/slog"

// Open returns ErrUnsupported here.
func Open(Config, *slog.Logger) (Table, error) { return nil, ErrUnsupported }

// NewLoops returns ErrUnsupported here.
func NewLoops(Config, *slog.Logger) (Table, error) { return nil, ErrUnsupported }
