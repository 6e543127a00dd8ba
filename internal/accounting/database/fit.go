package database

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// digestLength is what makes a changed value differ from others that begin alike.
const digestLength = 1 + 16

// fit makes a value that a column takes. What is not valid UTF-8, NUL, and what the column
// has no characters for become question marks; too much is cut. A value that was changed ends
// with a digest of what it was.
func fit(s string, l limit) string {
	plain := strings.Map(func(r rune) rune {
		if r == utf8.RuneError || r == 0 || l.ascii && r >= utf8.RuneSelf {
			return '?'
		}
		return r
	}, s)
	if plain == s && utf8.RuneCountInString(s) <= l.characters {
		return s
	}
	return digested(plain, s, l.characters)
}

// digested is the beginning of a value and a digest of the whole.
func digested(plain, whole string, characters int) string {
	keep, n := max(0, characters-digestLength), 0
	for i := range plain {
		if n == keep {
			plain = plain[:i]
			break
		}
		n++
	}
	sum := sha256.Sum256([]byte(whole))
	end := "~" + hex.EncodeToString(sum[:8])
	return plain + end[:min(len(end), characters)]
}
