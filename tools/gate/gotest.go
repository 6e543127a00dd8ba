package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// event is one line of `go test -json`.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

// slow is from when on a package is worth a line of its own, in seconds.
const slow = 10

// tally counts the events of one `go test` run.
type tally struct {
	r      *result
	log    io.Writer
	output map[string][]string // what a running test has printed
	inTest map[string]bool     // packages in which a test failed
}

func newTally(r *result, log io.Writer) *tally {
	return &tally{r: r, log: log, output: map[string][]string{}, inTest: map[string]bool{}}
}

func (t *tally) line(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil {
		fmt.Fprintf(t.log, "%s\n", line)
		return
	}
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		io.WriteString(t.log, e.Output)
		if e.Action == "build-output" {
			key = e.ImportPath
		}
		t.output[key] = append(t.output[key], e.Output)
	case "pass":
		if e.Test != "" {
			t.r.passed++
		} else if e.Elapsed >= slow {
			fmt.Printf("    %-60s %6.1f s\n", e.Package, e.Elapsed)
		}
		delete(t.output, key)
	case "skip":
		if e.Test != "" {
			t.r.skipped = append(t.r.skipped, skip{e.Package, e.Test, reason(t.output[key])})
		}
		delete(t.output, key)
	case "fail":
		t.fail(e, key)
	case "build-fail":
		t.r.failf("%s does not build", e.ImportPath)
		show(t.output[e.ImportPath])
	}
}

// fail counts a failed test; a package counts only when no test of it failed
// (a race found at exit, a leak, a time-out).
func (t *tally) fail(e event, key string) {
	if e.Test == "" {
		if !t.inTest[e.Package] {
			t.r.failf("%s", e.Package)
			show(t.output[key])
		}
		return
	}
	// the failure of a parent adds nothing to that of its child
	for other := range t.inTest {
		if strings.HasPrefix(other, key+"/") {
			return
		}
	}
	t.inTest[e.Package], t.inTest[key] = true, true
	t.r.failf("%s %s", e.Package, e.Test)
	show(t.output[key])
}

func show(lines []string) {
	const most = 60
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	for _, line := range lines {
		fmt.Print("    ", line)
	}
}

// reason is what a skipped test printed, without the position and the frame around it.
func reason(lines []string) string {
	for _, line := range lines {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") || line == "" {
			continue
		}
		if _, text, ok := strings.Cut(line, ".go:"); ok {
			if _, text, ok = strings.Cut(text, ": "); ok {
				return text
			}
		}
		return line
	}
	return "no reason given"
}

func (g *gate) goTest(ctx context.Context, r *result, log io.Writer, args ...string) {
	g.goTestEnv(ctx, r, log, ".", nil, args...)
}

func (g *gate) goTestIn(ctx context.Context, r *result, log io.Writer, dir string, args ...string) {
	g.goTestEnv(ctx, r, log, dir, nil, args...)
}

// goTestEnv runs `go test -json` in a folder of the repository and counts what it tells.
func (g *gate) goTestEnv(ctx context.Context, r *result, log io.Writer, dir string, env []string, args ...string) {
	args = append([]string{"-C", dir, "test", "-json"}, args...)
	fmt.Fprintf(log, "$ go %s\n", strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = g.root
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=1"), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 20 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.failf("start go test: %v", err)
		return
	}
	before := r.failed
	t := newTally(r, log)
	in := bufio.NewReader(out)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			t.line(bytes.TrimRight(line, "\n"))
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	log.Write(stderr.Bytes())
	if err != nil && r.failed == before {
		r.failf("go test: %v: %s", err, strings.TrimSpace(stderr.String()))
	}
}
