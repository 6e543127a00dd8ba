package main

import (
	"context"
	"io"
)

// soakLanes fuzz targets run at once in a soak: all of them. Two at a time would be
// quicker for each, but thirty at 10 min would take longer than the hour a soak may.
const soakLanes = 100

// soak is what is too long for every change: the end to end tests with everything
// the gate leaves out, the kernel program with ten million packets, ten thousand streams
// for five minutes, then every fuzz target for soakTime.
func soak(ctx context.Context, g *gate, r *result, log io.Writer) {
	packages, err := g.packages(ctx, "", true)
	if err != nil {
		r.failf("%v", err)
		return
	}
	args := []string{"-race", "-count=1", "-p", "1", "-timeout", "3h"}
	g.goTestEnv(ctx, r, log, ".", []string{"MEDIAPROXY_TEST=soak"}, append(args, packages...)...)
	g.goTestEnv(ctx, r, log, ".", []string{"MEDIAPROXY_TEST=soak"}, "-count=1", "-timeout", "1h", "./"+kernelProgram)
	if err := g.command(ctx, log, nil, "go", "run", "./test/bench", "-only", "many", "-many", "5m"); err != nil {
		r.failf("many streams: %v (the table is in the log)", err)
	} else {
		r.passed++
	}
	g.fuzz(ctx, r, log, g.soakTime, soakLanes)
}
