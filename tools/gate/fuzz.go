package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"strings"
	"sync"
	"time"
)

// target is one Fuzz function.
type target struct{ dir, name string }

var fuzzFunc = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(\w+ \*testing\.F\)`)

// fuzzTargets finds every Fuzz function by reading the sources: nobody has to keep a list.
func (g *gate) fuzzTargets() ([]target, error) {
	var found []target
	err := filepath.WalkDir(g.root, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "build" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(g.root, filepath.Dir(name))
		if err != nil {
			return err
		}
		for _, m := range fuzzFunc.FindAllSubmatch(text, -1) {
			found = append(found, target{dir, string(m[1])})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for fuzz targets: %w", err)
	}
	sort.Slice(found, func(i, j int) bool {
		return found[i].dir+" "+found[i].name < found[j].dir+" "+found[j].name
	})
	return found, nil
}

func fuzzShort(ctx context.Context, g *gate, r *result, log io.Writer) {
	g.fuzz(ctx, r, log, g.fuzzTime, runtime.NumCPU())
}

// fuzz gives every target the same time, so many at once and one worker each.
func (g *gate) fuzz(ctx context.Context, r *result, log io.Writer, each time.Duration, lanes int) {
	targets, err := g.fuzzTargets()
	if err != nil {
		r.failf("%v", err)
		return
	}
	if len(targets) == 0 {
		r.failf("no fuzz target found")
		return
	}
	lanes = min(lanes, len(targets))
	rounds := (len(targets) + lanes - 1) / lanes
	fmt.Printf("    %d targets, %v each, %d at once: at least %v\n",
		len(targets), each, lanes, time.Duration(rounds)*each)
	var mu sync.Mutex // guards r and log
	var wg sync.WaitGroup
	work := make(chan target)
	for range lanes {
		wg.Go(func() {
			for t := range work {
				out, err := g.fuzzOne(ctx, t, each)
				mu.Lock()
				log.Write(out)
				if err != nil {
					r.failf("%s in %s: %v", t.name, t.dir, err)
					show(strings.SplitAfter(string(out), "\n"))
				} else {
					r.passed++
				}
				mu.Unlock()
			}
		})
	}
	for _, t := range targets {
		work <- t
	}
	close(work)
	wg.Wait()
}

// fuzzOne runs one target: its seeds, its saved finds, then new inputs.
func (g *gate) fuzzOne(ctx context.Context, t target, each time.Duration) ([]byte, error) {
	for try := 1; ; try++ {
		cmd := exec.CommandContext(ctx, "go", "test", "-run", "^"+t.name+"$", "-fuzz", "^"+t.name+"$",
			"-fuzztime", each.String(), "-parallel", "1", "-timeout", "0", "./"+t.dir)
		cmd.Dir = g.root
		out, err := cmd.CombinedOutput()
		// The fuzzing engine reports its own deadline as a failure when a worker is
		// late to notice it (seen on loaded machines). A find always names its input.
		late := bytes.Contains(out, []byte("context deadline exceeded")) &&
			!bytes.Contains(out, []byte("Failing input written"))
		if err != nil && late && try < 3 && ctx.Err() == nil {
			continue
		}
		return out, err
	}
}
