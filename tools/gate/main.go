// Gate runs everything that has to hold before a change goes in, stage by stage,
// and ends with a table: passed, failed, skipped and seconds. It fails when a
// stage fails, and when a test was skipped that test/skips.txt does not name:
// what is silently not tested is the same as broken.
//
//	go run -C tools ./gate                          the whole gate (`make test`)
//	go run -C tools ./gate -stages gofmt,vet        some stages
//	go run -C tools ./gate -stages soak -fuzztime 10m
//
// What each stage printed is kept in build/gate/STAGE.log.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// gate is one run: where it works and what it was asked for.
type gate struct {
	root     string // of the repository
	logs     string // folder of the stage logs
	fuzzTime time.Duration
	soakTime time.Duration
	allowed  skipList
}

func main() {
	stages := flag.String("stages", "", "comma separated stages; empty: those of the gate")
	fuzz := flag.Duration("fuzztime", 10*time.Minute, "time for each fuzz target in the stage soak")
	limit := flag.Duration("limit", 30*time.Minute, "the gate may take this long; soak has no limit")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, *stages, *fuzz, *limit)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gate:", err)
		os.Exit(2)
	}
	os.Exit(code)
}

// run returns the exit code: 0 all passed, 1 something failed.
func run(ctx context.Context, names string, soakTime, limit time.Duration) (int, error) {
	// The checkout may belong to another user than the one who tests it (root).
	out, err := exec.CommandContext(ctx, "git", "-c", "safe.directory=*", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return 0, fmt.Errorf("find the top of the repository: %w", err)
	}
	g := &gate{root: strings.TrimSpace(string(out)), fuzzTime: 5 * time.Second, soakTime: soakTime}
	g.logs = filepath.Join(g.root, "build", "gate")
	if err := os.MkdirAll(g.logs, 0o755); err != nil {
		return 0, fmt.Errorf("make the folder for logs: %w", err)
	}
	if g.allowed, err = readSkips(filepath.Join(g.root, "test", "skips.txt")); err != nil {
		return 0, err
	}
	chosen, soak, err := choose(names)
	if err != nil {
		return 0, err
	}
	if !soak {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	results := g.runStages(ctx, chosen)
	return summary(os.Stdout, results, g.allowed), nil
}

func choose(names string) (chosen []stage, soak bool, err error) {
	if names == "" {
		for _, s := range stages {
			if !s.extra {
				chosen = append(chosen, s)
			}
		}
		return chosen, false, nil
	}
	for _, name := range strings.Split(names, ",") {
		found := false
		for _, s := range stages {
			if s.name == name {
				chosen, found = append(chosen, s), true
			}
		}
		if !found {
			return nil, false, fmt.Errorf("no stage %q; there are: %s", name, stageNames())
		}
		soak = soak || name == "soak"
	}
	return chosen, soak, nil
}

// runStages runs one stage after the other. A failed stage does not keep the
// later ones from telling what they find, unless they need what it makes.
func (g *gate) runStages(ctx context.Context, chosen []stage) []*result {
	var results []*result
	broken := ""
	for _, s := range chosen {
		r := &result{stage: s.name}
		results = append(results, r)
		if broken != "" {
			r.failf("not run: stage %s failed", broken)
			continue
		}
		fmt.Printf("==> %s\n", s.name)
		start := time.Now()
		log, err := os.Create(filepath.Join(g.logs, s.name+".log"))
		if err != nil {
			r.failf("create the log: %v", err)
			continue
		}
		s.run(ctx, g, r, log)
		log.Close()
		r.seconds = time.Since(start).Seconds()
		if r.failed > 0 && s.needed {
			broken = s.name
		}
		if ctx.Err() != nil {
			r.failf("stopped: %v", context.Cause(ctx))
			broken = s.name
		}
	}
	return results
}

// command runs a program in the repository, its output going to the log.
func (g *gate) command(ctx context.Context, log io.Writer, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = g.root
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	// The tests clean up after themselves when they are told to stop.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	fmt.Fprintf(log, "$ %s %s\n", name, strings.Join(args, " "))
	return cmd.Run()
}
