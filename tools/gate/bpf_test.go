package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCompareFindsEveryDifference(t *testing.T) {
	a, b := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	write := func(folder, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(a, "same", "x")
	write(a, "other", "x")
	if err := os.Mkdir(filepath.Join(a, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(a, b); err != nil {
		t.Fatal(err)
	}
	if err := compare(a, b); err != nil {
		t.Errorf("a copy differs: %v", err)
	}
	write(b, "other", "y")
	write(a, "onlyHere", "")
	write(b, "onlyThere", "")
	err := compare(a, b)
	if err == nil || !strings.HasSuffix(err.Error(), ": onlyHere onlyThere other") {
		t.Errorf("got %v, want the three names", err)
	}
}
