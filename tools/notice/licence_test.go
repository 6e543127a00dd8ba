package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestIdentify(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"\n  Apache License\n  Version 2.0, January 2004", "Apache-2.0"},
		{"Permission is hereby granted, free of\ncharge, to any person", "MIT"},
		{"Redistributions of source code must retain\nNeither the name of", "BSD-3-Clause"},
		{"Redistributions of source code must retain the notice", "BSD-2-Clause"},
		{"Mozilla Public License Version 2.0\n====\n1.12. Secondary License means the GNU General Public License", "MPL-2.0"},
		{"under the Mozilla Public License Version 2.0 or the GNU General Public License", ""},
		{"GNU GENERAL PUBLIC LICENSE Version 3", ""},
		{"all rights reserved", ""},
	} {
		got, err := identify(c.text)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("identify(%q) = %q, %v; want %q", c.text, got, err, c.want)
		}
	}
}

func TestRenderQuotesWhatMustTravel(t *testing.T) {
	write := func(dir, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mit, apache, mozilla := t.TempDir(), t.TempDir(), t.TempDir()
	write(mozilla, "LICENSE", "Mozilla Public License Version 2.0\nand its text")
	write(mit, "LICENSE", "Copyright Somebody \r\nPermission is hereby granted, free of charge\n\n")
	write(apache, "LICENSE", "Apache License, Version 2.0 and its long text")
	write(apache, "NOTICE", "This product includes things.\n")
	got, err := render([]module{{Path: "a.org/m", Version: "v1", Dir: mit}, {Path: "b.org/n", Version: "v2", Dir: apache}, {Path: "d.org/p", Version: "v4", Dir: mozilla}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a.org/m v1\nLicence: MIT\n\nCopyright Somebody\nPermission", "b.org/n v2\nLicence: Apache-2.0\n",
		"Licence: MPL-2.0\nIts source: https://proxy.golang.org/d.org/p/@v/v4.zip\n\nMozilla",
		"Its NOTICE:\n\nThis product includes things.\n"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("NOTICE lacks %q:\n%s", want, got)
		}
	}
	if strings.Contains(string(got), "its long text") {
		t.Error("the Apache License is repeated")
	}
	if _, err = render([]module{{Path: "c.org/o", Version: "v3", Dir: t.TempDir()}}); err == nil {
		t.Error("a module without a licence was accepted")
	}
}
