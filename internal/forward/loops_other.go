//go:build !linux

package forward

import "log/slog"

// NewLoops returns ErrUnsupported here.
func NewLoops(_ LoopConfig, _ *slog.Logger) (Table, error) { return nil, ErrUnsupported }
