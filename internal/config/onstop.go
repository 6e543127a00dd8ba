package config

import (
	"errors"
	"strings"
)

// onStop knows only "end" until calls can outlive the process that carries them.
var onStop = kind[string]{
	word: "end",
	parse: func(s string) (string, error) {
		switch strings.ToLower(s) {
		case "end":
			return "end", nil
		case "keep":
			return "", errors.New("calls cannot outlive the relay in this version; want end, or HUP the relay to let them finish")
		}
		return "", errors.New("want end")
	},
	print: func(s string) string { return s },
}
