package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// relayLike has the subject of a certificate made for the original programs.
func relayLike() *x509.Certificate {
	name := func(id string, value any) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: attributeIDs[id], Value: value}
	}
	return &x509.Certificate{Subject: pkix.Name{Names: []pkix.AttributeTypeAndValue{
		name("C", "NL"), name("L", "Haarlem"), name("O", "Phones, Inc"), name("OU", "MediaProxy"), name("OU", "Second unit"),
		name("CN", "MediaProxy relay"), name("EMAIL", "ops@example.com"),
	}}}
}

func TestPassportMatch(t *testing.T) {
	for passport, want := range map[string]bool{
		"None":                              true,
		"none":                              true,
		"NONE":                              true,
		`O:Phones\, Inc, CN:*relay`:         true,
		`O:Phones\, Inc,CN:*relay`:          true,
		`O:Phones\, Inc,    CN:*relay`:      true,
		"CN:MediaProxy*":                    true,
		"CN:*":                              true,
		"CN:MediaProxy relay":               true,
		"OU:Second unit":                    true,
		"OU:Second unit, OU:MediaProxy":     true,
		"EMAIL:*@example.com":               true,
		"C:NL, L:Haarlem":                   true,
		"CN:mediaproxy relay":               false, // case counts
		"OU:Other":                          false,
		`O: Phones\, Inc`:                   false, // the space belongs to the value
		`O:Phones\, Inc , CN:*relay`:        false, // so does this one
		"CN:*proxy r*":                      false, // the star in front wins
		"ST:*":                              false, // absent
		"ST:":                               false,
		"C:":                                false, // an empty value meets nothing
		"EMAIL:ops@example.org":             false,
		`O:Phones\, Inc, CN:*relay, C:DE`:   false, // all must match
		`CN:MediaProxy relay\, and another`: false,
	} {
		p, err := ParsePassport(passport)
		if err != nil {
			t.Errorf("%q: %v", passport, err)
			continue
		}
		err = p.Match(relayLike())
		if got := err == nil; got != want {
			t.Errorf("%q: accepted %v, want %v (%v)", passport, got, want, err)
		}
		if err != nil && !errors.Is(err, ErrPassport) {
			t.Errorf("%q: %v is not an ErrPassport", passport, err)
		}
	}
}

func TestPassportInvalid(t *testing.T) {
	for passport, want := range map[string]string{
		"":             "NAME:value",
		"CN":           "NAME:value",
		"cn:x":         `"cn" is not one of`,
		"CN:x,":        `"" is not of the form`,
		"CN:x, ":       `"" is not of the form`,
		"CN:x, , OU:y": `"" is not of the form`,
		" CN:x":        `" CN" is not one of`,
		"CN :x":        `"CN " is not one of`,
		"None, CN:x":   `"None" is not of the form`,
		"UID:x":        `"UID" is not one of`,
		"CN=x":         "NAME:value",
	} {
		p, err := ParsePassport(passport)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", passport, err, want)
		}
		if !p.IsNone() {
			t.Errorf("%q: gives a passport besides the error: %v", passport, p)
		}
	}
}

func TestPassportRefusalNamesWhatIsWrong(t *testing.T) {
	p, err := ParsePassport("C:NL, CN:other")
	if err != nil {
		t.Fatal(err)
	}
	got := p.Match(relayLike()).Error()
	want := `passport does not match: it wants CN to be "other" and the certificate has ["MediaProxy relay"]`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func FuzzParsePassport(f *testing.F) {
	for _, seed := range []string{"None", "CN:*", `O:a\, b, CN:c`, `O:\\,`, "O: x ,\t CN:*y*", `CN:\`, `O:a\,`, "CN:,"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePassport(s)
		if err != nil {
			if !p.IsNone() {
				t.Fatalf("%q: a passport besides an error", s)
			}
			return
		}
		if p.IsNone() != strings.EqualFold(s, "none") {
			t.Fatalf("%q: only the word itself may switch the check off", s)
		}
		again, err := ParsePassport(p.String())
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Fatalf("%q -> %q -> %q, %v", s, p, again, err)
		}
	})
}
