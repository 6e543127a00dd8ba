package pki

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"strings"
)

// A Passport is a condition on the subject of a peer's certificate, written
//
//	AN:value, AN:value ...
//
// where AN is one of O OU CN C L ST EMAIL. Spaces after the comma separate;
// every other space belongs to a value. A literal comma is written `\,`. All
// pairs must match, exactly as written, except that a value may end or start
// with a star that stands for any text. The word None, in any case, means that
// every certificate of the authority is welcome; so does the zero Passport.
type Passport struct {
	pairs []passportPair
}

type passportPair struct {
	attribute string
	value     string // unescaped, stars included
}

// attributeIDs are the object identifiers of the subject's attributes. They are
// looked up among all names of the subject, because the e-mail address has no
// field of its own there.
var attributeIDs = map[string]asn1.ObjectIdentifier{
	"O":     {2, 5, 4, 10},
	"OU":    {2, 5, 4, 11},
	"CN":    {2, 5, 4, 3},
	"C":     {2, 5, 4, 6},
	"L":     {2, 5, 4, 7},
	"ST":    {2, 5, 4, 8},
	"EMAIL": {1, 2, 840, 113549, 1, 9, 1},
}

// ParsePassport reads a passport. Anything it does not understand is an error:
// a mistyped condition must never become no condition.
func ParsePassport(s string) (Passport, error) {
	if strings.EqualFold(s, "none") {
		return Passport{}, nil
	}
	var p Passport
	for _, part := range splitPairs(s) {
		attribute, value, found := strings.Cut(part, ":")
		if !found {
			return Passport{}, fmt.Errorf("passport %q: %q is not of the form NAME:value; write None to accept every certificate of the authority", s, part)
		}
		if _, known := attributeIDs[attribute]; !known {
			return Passport{}, fmt.Errorf("passport %q: %q is not one of O OU CN C L ST EMAIL in capitals, without spaces around it", s, attribute)
		}
		p.pairs = append(p.pairs, passportPair{attribute, strings.ReplaceAll(value, `\,`, ",")})
	}
	return p, nil
}

// splitPairs cuts at every comma without a backslash before it and drops the
// spaces that follow. A comma at the end leaves an empty last part.
func splitPairs(s string) []string {
	var parts []string
	start := 0
	for i := 0; i < len(s); i++ {
		if s[i] != ',' || i > start && s[i-1] == '\\' {
			continue
		}
		parts = append(parts, s[start:i])
		start = i + 1
		for start < len(s) && (s[start] == ' ' || s[start] == '\t') {
			start++
		}
		i = start - 1
	}
	return append(parts, s[start:])
}

// String gives the passport back in the form that ParsePassport reads.
func (p Passport) String() string {
	if p.IsNone() {
		return "None"
	}
	parts := make([]string, len(p.pairs))
	for i, pair := range p.pairs {
		parts[i] = pair.attribute + ":" + strings.ReplaceAll(pair.value, ",", `\,`)
	}
	return strings.Join(parts, ", ")
}

// IsNone reports whether the passport accepts every certificate.
func (p Passport) IsNone() bool { return len(p.pairs) == 0 }

// Match returns nil if the certificate's subject meets every condition, else an
// ErrPassport that says which one it does not meet.
func (p Passport) Match(cert *x509.Certificate) error {
	for _, pair := range p.pairs {
		values := subjectValues(cert, pair.attribute)
		if !pair.matchesAny(values) {
			have := "none"
			if len(values) > 0 {
				have = fmt.Sprintf("%q", values)
			}
			return fmt.Errorf("%w: it wants %s to be %q and the certificate has %s", ErrPassport, pair.attribute, pair.value, have)
		}
	}
	return nil
}

func (pair passportPair) matchesAny(values []string) bool {
	for _, v := range values {
		if pair.matches(v) {
			return true
		}
	}
	return false
}

// matches tests one value of the attribute. A star in front wins over one at
// the end. An empty condition matches nothing, not even an empty attribute:
// whoever writes it has left something out.
func (pair passportPair) matches(value string) bool {
	if suffix, ok := strings.CutPrefix(pair.value, "*"); ok {
		return strings.HasSuffix(value, suffix)
	}
	if prefix, ok := strings.CutSuffix(pair.value, "*"); ok {
		return strings.HasPrefix(value, prefix)
	}
	return pair.value != "" && value == pair.value
}

func subjectValues(cert *x509.Certificate, attribute string) []string {
	var values []string
	for _, name := range cert.Subject.Names {
		if !name.Type.Equal(attributeIDs[attribute]) {
			continue
		}
		if text, ok := name.Value.(string); ok {
			values = append(values, text)
		}
	}
	return values
}
