package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// Every command has a page, and the same pages come out again.
func TestPages(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	first, second := t.TempDir(), t.TempDir()
	for _, dir := range []string{first, second} {
		if err := write(dir); err != nil {
			t.Fatal(err)
		}
	}
	for page, want := range map[string]string{
		"mediaproxy.8":                  "mediaproxy-up(8)",
		"mediaproxy-up.8":               "port-range",
		"mediaproxy-relay.8":            "config-dir",
		"mediaproxy-check.8":            "Exit codes",
		"mediaproxy-doctor.8":           "Exit codes",
		"mediaproxy-bench-dispatcher.8": "Exit codes",
		"media-dispatcher.8":            "no-fork",
		"media-relay.8":                 "systemd",
	} {
		text, err := os.ReadFile(filepath.Join(first, page))
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Contains(bytes.ReplaceAll(text, []byte(`\-`), []byte("-")), []byte(want)) {
			t.Errorf("%s says nothing of %s", page, want)
		}
		again, err := os.ReadFile(filepath.Join(second, page))
		if err != nil || !bytes.Equal(text, again) {
			t.Errorf("%s comes out differently the second time: %v", page, err)
		}
	}
}
