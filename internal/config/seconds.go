package config

import (
	"fmt"
	"strconv"
	"time"
)

// maxSeconds keeps durations far from overflow; ten years are "never" for a call.
const maxSeconds = 10 * 365 * 24 * 3600

// seconds is a whole number of seconds, not less than least.
func seconds(least int) kind[time.Duration] {
	n := number(least, maxSeconds)
	return kind[time.Duration]{
		word: "seconds",
		parse: func(s string) (time.Duration, error) {
			v, err := n.parse(s)
			if err != nil {
				return 0, fmt.Errorf("want whole seconds from %d to %d", least, maxSeconds)
			}
			return time.Duration(v) * time.Second, nil
		},
		print: func(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) },
	}
}

// number is a whole number in [least, most].
func number(least, most int) kind[int] {
	return kind[int]{
		word: "number",
		parse: func(s string) (int, error) {
			v, err := strconv.Atoi(s)
			if err != nil || v < least || v > most {
				return 0, fmt.Errorf("want a whole number from %d to %d", least, most)
			}
			return v, nil
		},
		print: strconv.Itoa,
	}
}
