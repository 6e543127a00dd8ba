package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"unicode"
)

// A kind is a type of value: how it is called in the documentation, how it is read and
// how it is printed. Reading what was printed gives the same value. The error of parse
// says what would be right ("want ...").
type kind[T any] struct {
	word  string
	parse func(string) (T, error)
	print func(T) string
}

// text takes any line as it is.
var text = kind[string]{word: "text", parse: oneLine, print: func(s string) string { return s }}

// path is the name of a file or folder.
var path = kind[string]{word: "path", parse: oneLine, print: func(s string) string { return s }}

// folder is a path that means the same wherever the program is started.
var folder = kind[string]{
	word: "absolute path",
	parse: func(s string) (string, error) {
		if !filepath.IsAbs(s) {
			return "", errors.New("want an absolute path")
		}
		return oneLine(s)
	},
	print: path.print,
}

// proxySocket is a datagram socket: an absolute path or udp:IP:PORT.
var proxySocket = kind[string]{
	word: "absolute path, or udp:IP:PORT",
	parse: func(s string) (string, error) {
		if rest, ok := strings.CutPrefix(s, "udp:"); ok {
			if a, err := netip.ParseAddrPort(rest); err != nil || a.Port() == 0 {
				return "", errors.New("want an absolute path, or udp:IP:PORT")
			}
			return s, nil
		}
		return folder.parse(s)
	},
	print: path.print,
}

func oneLine(s string) (string, error) {
	if s == "" || strings.ContainsAny(s, "\n\x00") {
		return "", errors.New("want one line that is not empty")
	}
	return s, nil
}

// passport is kept as text; the certificates' room knows its syntax. "None", in any
// case, means no check and is kept as the empty string.
var passport = kind[string]{
	word: "passport",
	parse: func(s string) (string, error) {
		if strings.EqualFold(s, "none") {
			return "", nil
		}
		if s == "" || strings.ContainsAny(s, "\n\x00") {
			return "", errors.New(`want "attribute:value, ..." or None; an empty passport would let everyone in`)
		}
		return s, nil
	},
	print: func(s string) string {
		if s == "" {
			return "None"
		}
		return s
	},
}

// boolean knows the words of the original, in any case.
var boolean = kind[bool]{
	word: "yes | no",
	parse: func(s string) (bool, error) {
		switch strings.ToLower(s) {
		case "yes", "true", "on", "1":
			return true, nil
		case "no", "false", "off", "0":
			return false, nil
		}
		return false, errors.New("want yes or no")
	},
	print: func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	},
}

// choice takes one of the words, in any case.
func choice(words ...string) kind[string] {
	return kind[string]{
		word: strings.Join(words, " | "),
		parse: func(s string) (string, error) {
			for _, w := range words {
				if strings.EqualFold(s, w) {
					return w, nil
				}
			}
			return "", fmt.Errorf("want one of %s", strings.Join(words, ", "))
		},
		print: func(s string) string { return s },
	}
}

// name is a word that identifies something on the wire and in tables.
var name = kind[string]{
	word: "name",
	parse: func(s string) (string, error) {
		bad := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == ',' || r == '=' }
		if s == "" || len(s) > 128 || strings.ContainsFunc(s, bad) {
			return "", errors.New("want one word of at most 128 bytes, without comma and equals sign")
		}
		return s, nil
	},
	print: func(s string) string { return s },
}

// words is a list, separated by commas, spaces or line ends.
var words = kind[[]string]{
	word:  "list of words",
	parse: func(s string) ([]string, error) { return splitList(s), nil },
	print: func(list []string) string { return strings.Join(list, ", ") },
}

// backends is the list of where finished calls go.
var backends = kind[[]string]{
	word: "list of back-ends",
	parse: func(s string) ([]string, error) {
		return listOf(s, choice("webhook", "database", "radius").parse)
	},
	print: words.print,
}

// httpURL is where something is posted.
var httpURL = kind[string]{
	word: "http:// or https:// URL",
	parse: func(s string) (string, error) {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return "", errors.New("want http://HOST/PATH or https://HOST/PATH")
		}
		return oneLine(s)
	},
	print: path.print,
}

// splitList cuts at commas and white space; empty pieces are left out.
func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
}

// listOf reads a list whose items are read by parse, all or nothing.
func listOf[T any](s string, parse func(string) (T, error)) ([]T, error) {
	var out []T
	for _, item := range splitList(s) {
		v, err := parse(item)
		switch {
		case err != nil && item == s:
			return nil, err // the caller quotes the value
		case err != nil:
			return nil, fmt.Errorf("%q: %w", item, err)
		}
		out = append(out, v)
	}
	return out, nil
}

// printList is the reverse of listOf.
func printList[T any](list []T, print func(T) string) string {
	items := make([]string, len(list))
	for i, v := range list {
		items[i] = print(v)
	}
	return strings.Join(items, ", ")
}
