package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const kernelProgram = "internal/forward"

// kernelPrograms are the folders with programs for the kernel; the first has the
// header for all.
var kernelPrograms = []string{kernelProgram, "test/bench/traffic"}

// bpf builds the kernel programs again and compares them with what is committed, byte
// by byte. It works on a copy, so that it changes nothing.
func bpf(ctx context.Context, g *gate, r *result, log io.Writer) {
	folder, err := os.MkdirTemp("", "gate-bpf-")
	if err != nil {
		r.failf("make a folder: %v", err)
		return
	}
	defer os.RemoveAll(folder)
	for _, name := range append([]string{"go.mod", "go.sum", "tools/go.mod", "tools/go.sum"}, kernelPrograms...) {
		if err := copyTree(filepath.Join(g.root, name), filepath.Join(folder, name)); err != nil {
			r.failf("copy %s: %v", name, err)
			return
		}
	}
	for _, program := range kernelPrograms {
		r.check(rebuild(ctx, g, log, folder, program), log, program+": what is committed is what its source makes (make generate)")
	}
}

// rebuild builds the programs of one folder in the copy below top.
func rebuild(ctx context.Context, g *gate, log io.Writer, top, program string) error {
	folder := filepath.Join(top, program)
	built, err := filepath.Glob(filepath.Join(folder, "*_bpfe[lb].*"))
	for _, name := range built { // what is not built again must not look as if it were
		err = errors.Join(err, os.Remove(name))
	}
	if err != nil {
		return fmt.Errorf("remove the copies of built files: %w", err)
	}
	if err := g.command(ctx, log, nil, "go", "-C", folder, "generate", "."); err != nil {
		return fmt.Errorf("build it: %w", err)
	}
	return compare(filepath.Join(g.root, program), folder)
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rest, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rest)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, text, 0o644)
	})
}

// compare names the files that differ between two folders.
func compare(a, b string) error {
	names := map[string]bool{}
	for _, folder := range []string{a, b} {
		list, err := os.ReadDir(folder)
		if err != nil {
			return err
		}
		for _, d := range list {
			if !d.IsDir() {
				names[d.Name()] = true
			}
		}
	}
	var differ []string
	for name := range names {
		one, errA := os.ReadFile(filepath.Join(a, name))
		two, errB := os.ReadFile(filepath.Join(b, name))
		if errA != nil || errB != nil || !bytes.Equal(one, two) {
			differ = append(differ, name)
		}
	}
	slices.Sort(differ)
	if len(differ) > 0 {
		return fmt.Errorf("these differ: %s", strings.Join(differ, " "))
	}
	return nil
}
