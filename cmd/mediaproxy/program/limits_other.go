//go:build !linux

package program

// raiseDescriptorLimit has nothing to do where no relay runs.
func raiseDescriptorLimit(int) {}
