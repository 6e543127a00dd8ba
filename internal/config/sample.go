package config

import (
	"fmt"
	"strings"
)

// Sample returns config.ini.sample: every setting with its explanation, commented out
// at its default.
func Sample() []byte {
	var b strings.Builder
	b.WriteString("; Configuration of mediaproxy, media-dispatcher and media-relay.\n" +
		"; Copy it to /etc/mediaproxy/config.ini and remove the ; before what you change.\n" +
		"; A comment takes a whole line. Names are case-sensitive. Write %% for a percent sign.\n")
	for _, s := range sections {
		fmt.Fprintf(&b, "\n\n%s[%s]\n", comment(s.help), s.name)
		for _, k := range s.keys {
			fmt.Fprintf(&b, "\n%s;%s\n", comment(k.describe()), assignment(k.name, k.def))
		}
	}
	return []byte(b.String())
}

// describe is the explanation of a setting with what the bare line cannot say.
func (k key) describe() string {
	out := k.help + " (" + k.word + ")"
	if k.defText != "" {
		out += " Default: " + k.defText + "."
	}
	if k.noEffect != "" {
		out += " No effect: " + k.noEffect + "."
	}
	return out
}

// assignment prints one line of a file that reads as name and value.
func assignment(name, value string) string {
	if value == "" {
		return name + " ="
	}
	return name + " = " + strings.ReplaceAll(value, "%", "%%")
}

// comment wraps text into comment lines.
func comment(text string) string {
	const width = 88
	var b strings.Builder
	line := ";"
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line = ";"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
	return b.String()
}

// Effective prints every setting with its value in force, as a file that loads to the
// same configuration. Values that hold credentials are replaced by a comment.
func (c *Config) Effective() []byte {
	var b strings.Builder
	for i, s := range sections {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "[%s]\n", s.name)
		for _, k := range s.keys {
			value := k.get(c)
			switch {
			case k.secret && value != "":
				fmt.Fprintf(&b, "; %s is set\n", k.name)
			case value == "" && k.def == "":
				fmt.Fprintf(&b, "; %s is not set\n", k.name)
			default:
				b.WriteString(assignment(k.name, value) + "\n")
			}
		}
	}
	return []byte(b.String())
}
