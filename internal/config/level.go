package config

import (
	"errors"
	"log/slog"
	"strconv"
	"strings"
)

// LevelCritical stands above slog's own levels, as in the original.
const LevelCritical = slog.LevelError + 4

// logLevel is a level by the names or the numbers of Python's logging.
var logLevel = kind[slog.Level]{
	word: "CRITICAL | ERROR | WARNING | INFO | DEBUG, or a number",
	parse: func(s string) (slog.Level, error) {
		for _, l := range levels {
			if strings.EqualFold(s, l.name) {
				return l.level, nil
			}
		}
		// Python counts 10 where slog counts 4, and INFO is 20 there and 0 here.
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n > 1000 {
			return 0, errors.New("want CRITICAL, ERROR, WARNING, INFO, DEBUG or a number (DEBUG is 10, CRITICAL 50)")
		}
		for _, l := range levels {
			if n >= l.number {
				return l.level, nil
			}
		}
		return slog.LevelDebug, nil
	},
	print: func(level slog.Level) string {
		for _, l := range levels {
			if level >= l.level {
				return l.name
			}
		}
		return "DEBUG"
	},
}

var levels = []struct {
	name   string
	number int
	level  slog.Level
}{
	{"CRITICAL", 50, LevelCritical},
	{"ERROR", 40, slog.LevelError},
	{"WARNING", 30, slog.LevelWarn},
	{"INFO", 20, slog.LevelInfo},
	{"DEBUG", 10, slog.LevelDebug},
}
