package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// stage is one step of the gate.
type stage struct {
	name   string
	extra  bool // only when asked for
	needed bool // without it the later stages say nothing useful
	run    func(ctx context.Context, g *gate, r *result, log io.Writer)
}

// stages in the order in which they run: what is quick to tell comes first.
var stages []stage

func init() { // not a literal: soak refers to the stages' own functions
	stages = []stage{
		{name: "setup", needed: true, run: setup},
		{name: "build", needed: true, run: build},
		{name: "gofmt", run: gofmt},
		{name: "vet", run: vet},
		{name: "staticcheck", run: staticcheck},
		{name: "notice", run: notice},
		{name: "bpf", run: bpf},
		{name: "cross", run: cross},
		{name: "unit", run: unit},
		{name: "fuzz", run: fuzzShort},
		{name: "endtoend", run: endToEnd},
		{name: "soak", extra: true, run: soak},
	}
}

func stageNames() string {
	var names []string
	for _, s := range stages {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}

// otherSystems must build and vet; the gate cannot run their tests.
var otherSystems = []string{"freebsd", "darwin", "openbsd"}

var noCgo = []string{"CGO_ENABLED=0"}

func setup(ctx context.Context, g *gate, r *result, log io.Writer) {
	r.check(g.command(ctx, log, nil, "test/setup/install.sh"), log, "packages for the tests")
}

func build(ctx context.Context, g *gate, r *result, log io.Writer) {
	r.check(g.command(ctx, log, nil, "make", "build"), log, "make build")
}

// gofmt looks at the files git knows or would add, so that build folders do not matter.
func gofmt(ctx context.Context, g *gate, r *result, log io.Writer) {
	list := exec.CommandContext(ctx, "git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "*.go")
	list.Dir = g.root
	names, err := list.Output()
	if err != nil {
		r.failf("list Go files: %v", err)
		return
	}
	var files []string
	for _, name := range strings.Fields(string(names)) {
		if _, err := os.Stat(g.root + "/" + name); err == nil {
			files = append(files, name)
		}
	}
	cmd := exec.CommandContext(ctx, "gofmt", append([]string{"-l"}, files...)...)
	cmd.Dir = g.root
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	fmt.Fprint(log, out.String())
	if err == nil && out.Len() > 0 {
		err = fmt.Errorf("gofmt -w is needed for: %s", strings.Join(strings.Fields(out.String()), " "))
	}
	r.check(err, log, "gofmt")
}

func vet(ctx context.Context, g *gate, r *result, log io.Writer) {
	r.check(g.command(ctx, log, noCgo, "go", "vet", "./..."), log, "go vet")
	r.check(g.command(ctx, log, noCgo, "go", "-C", "tools", "vet", "./..."), log, "go vet in tools")
}

func staticcheck(ctx context.Context, g *gate, r *result, log io.Writer) {
	err := g.command(ctx, log, noCgo, "go", "tool", "-modfile=tools/go.mod", "staticcheck", "./...")
	r.check(err, log, "staticcheck")
}

func notice(ctx context.Context, g *gate, r *result, log io.Writer) {
	r.check(g.command(ctx, log, nil, "go", "run", "-C", "tools", "./notice"), log, "NOTICE is current (make notice)")
}

func cross(ctx context.Context, g *gate, r *result, log io.Writer) {
	for _, system := range otherSystems {
		env := append([]string{"GOOS=" + system}, noCgo...)
		r.check(g.command(ctx, log, env, "go", "build", "-o", os.DevNull, "./..."), log, "build for "+system)
		r.check(g.command(ctx, log, env, "go", "vet", "./..."), log, "vet for "+system)
	}
}

// unit runs the tests that live beside the code; those under test/ start real
// programs and have a stage of their own.
func unit(ctx context.Context, g *gate, r *result, log io.Writer) {
	packages, err := g.packages(ctx, "", false)
	if err != nil {
		r.failf("%v", err)
		return
	}
	g.goTest(ctx, r, log, append([]string{"-race", "-timeout", "10m"}, packages...)...)
	g.goTestIn(ctx, r, log, "tools", "./...")
}

// endToEnd runs the folders under test/ one after the other: several of them
// measure time or count packets and would disturb each other.
func endToEnd(ctx context.Context, g *gate, r *result, log io.Writer) {
	packages, err := g.packages(ctx, "", true)
	if err != nil {
		r.failf("%v", err)
		return
	}
	g.goTest(ctx, r, log, append([]string{"-race", "-count=1", "-p", "1", "-timeout", "18m"}, packages...)...)
}

// packages lists the module's packages with tests: those under test/ or the others.
func (g *gate) packages(ctx context.Context, under string, endToEnd bool) ([]string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-f",
		"{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}", "./"+under+"...")
	cmd.Dir = g.root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	var list []string
	for _, p := range strings.Fields(string(out)) {
		if strings.Contains(p+"/", "/test/") == endToEnd {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no packages with tests found (endToEnd=%v)", endToEnd)
	}
	return list, nil
}
