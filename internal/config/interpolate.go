package config

import (
	"errors"
	"fmt"
	"strings"
)

// maxInterpolation bounds values that refer to values; Python stops there too.
const maxInterpolation = 10

// maxValue bounds a value after interpolation. Ten levels of doubling references
// would otherwise turn a short file into gigabytes.
const maxValue = 64 << 10

// maxReferences bounds the work of one value: empty values that refer to empty values
// would stay short for ever.
const maxReferences = 1000

var (
	errValueTooLong = fmt.Errorf("value is longer than %d bytes after interpolation", maxValue)
	errReferences   = fmt.Errorf("value refers to more than %d others", maxReferences)
	errPercent      = errors.New("a single % is not allowed; write %% for a percent sign")
)

// interpolate resolves `%%` and `%(name)s` as ConfigParser does. lookup finds another
// setting of the same section, or of [DEFAULT].
func interpolate(value string, lookup func(name string) (string, bool)) (string, error) {
	in := interpolation{lookup: lookup}
	if err := in.add(value, 1); err != nil {
		return "", err
	}
	return in.out.String(), nil
}

type interpolation struct {
	lookup     func(name string) (string, bool)
	out        strings.Builder
	references int
}

func (in *interpolation) add(value string, depth int) error {
	if depth > maxInterpolation {
		return fmt.Errorf("references nest deeper than %d; is it referring to itself?", maxInterpolation)
	}
	for {
		text, rest, found := strings.Cut(value, "%")
		in.out.WriteString(text)
		if in.out.Len() > maxValue {
			return errValueTooLong
		}
		if !found {
			return nil
		}
		if after, ok := strings.CutPrefix(rest, "%"); ok {
			in.out.WriteByte('%')
			value = after
			continue
		}
		name, after, ok := cutReference(rest)
		if !ok {
			return errPercent
		}
		if in.references++; in.references > maxReferences {
			return errReferences
		}
		target, ok := in.lookup(normalName(name))
		if !ok {
			return fmt.Errorf("refers to %q, which is not set; write %%%% for a percent sign", name)
		}
		if err := in.add(target, depth+1); err != nil {
			return err
		}
		value = after
	}
}

// cutReference splits "(name)s rest", what follows a "%", into name and rest.
func cutReference(s string) (name, rest string, ok bool) {
	s, ok = strings.CutPrefix(s, "(")
	if !ok {
		return "", "", false
	}
	name, rest, ok = strings.Cut(s, ")")
	if !ok || name == "" {
		return "", "", false
	}
	rest, ok = strings.CutPrefix(rest, "s")
	return name, rest, ok
}
