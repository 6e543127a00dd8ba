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

// bpf builds the kernel program again and compares it with what is committed, byte by
// byte. It works on a copy, so that it changes nothing.
func bpf(ctx context.Context, g *gate, r *result, log io.Writer) {
	folder, err := os.MkdirTemp("", "gate-bpf-")
	if err != nil {
		r.failf("make a folder: %v", err)
		return
	}
	defer os.RemoveAll(folder)
	for _, name := range []string{"go.mod", "go.sum", "tools/go.mod", "tools/go.sum", kernelProgram} {
		if err := copyTree(filepath.Join(g.root, name), filepath.Join(folder, name)); err != nil {
			r.failf("copy %s: %v", name, err)
			return
		}
	}
	built, err := filepath.Glob(filepath.Join(folder, kernelProgram, "*_bpfe[lb].*"))
	for _, name := range built { // what is not built again must not look as if it were
		err = errors.Join(err, os.Remove(name))
	}
	if err != nil {
		r.failf("remove the copies of built files: %v", err)
		return
	}
	err = g.command(ctx, log, nil, "go", "-C", filepath.Join(folder, kernelProgram), "generate", ".")
	r.check(err, log, "build the kernel program")
	if err != nil {
		return
	}
	r.check(compare(filepath.Join(g.root, kernelProgram), filepath.Join(folder, kernelProgram)), log, "what is committed is what its source makes (make generate)")
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
