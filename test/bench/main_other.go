//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: the relay moves packets on Linux only, there is nothing to measure here")
	os.Exit(1)
}
