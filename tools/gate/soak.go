package main

import (
	"context"
	"io"
)

// soak is what is too long for every change: every fuzz target for soakTime, two
// at a time on two cores (so twenty targets at 10 min are 100 min), then the end
// to end tests with everything the gate leaves out.
func soak(ctx context.Context, g *gate, r *result, log io.Writer) {
	packages, err := g.packages(ctx, "", true)
	if err != nil {
		r.failf("%v", err)
		return
	}
	args := []string{"-race", "-p", "1", "-timeout", "3h"}
	g.goTestEnv(ctx, r, log, ".", []string{"MEDIAPROXY_TEST=soak"}, append(args, packages...)...)
	g.fuzz(ctx, r, log, g.soakTime)
}
