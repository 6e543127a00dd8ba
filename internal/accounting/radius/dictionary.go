package radius

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Dictionary says which numbers names have. It reads the files of servers and clients
// alike, and keeps what can be sent as a plain attribute; of the rest it knows why not.
type Dictionary struct {
	File       string // the main one
	attributes map[string]Definition
	values     map[string]uint32 // of Acct-Status-Type, the only one whose words are sent
}

// Definition is what a dictionary says of an attribute.
type Definition struct {
	Number byte   // 0: it cannot be sent
	Why    string // not
	Type   string // in lower case
	File   string
	Line   int
}

// Attribute finds a definition; names have no case.
func (d *Dictionary) Attribute(name string) (Definition, bool) {
	def, ok := d.attributes[strings.ToLower(name)]
	return def, ok
}

// StatusType is the number of a word for Acct-Status-Type.
func (d *Dictionary) StatusType(word string) (uint32, bool) {
	n, ok := d.values[strings.ToLower(word)]
	return n, ok
}

// maxFiles is several times what the largest set of dictionaries has.
const maxFiles = 2000

// dictionaryReader reads one dictionary with what it includes.
type dictionaryReader struct {
	*reader
	*Dictionary
	vendors map[string]bool
	files   int
}

func (r *reader) dictionary() *dictionaryReader {
	return &dictionaryReader{reader: r, vendors: map[string]bool{},
		Dictionary: &Dictionary{attributes: map[string]Definition{}, values: map[string]uint32{}}}
}

// include reads a file. open are the files that include it, block what it is inside of; the
// error is about the file as a whole.
func (d *dictionaryReader) include(path string, open []string, block string) error {
	if slices.Contains(open, path) {
		return fmt.Errorf("it includes itself: %s", strings.Join(append(open, path), ", "))
	}
	if d.files++; d.files > maxFiles {
		return fmt.Errorf("more than %d dictionaries include each other", maxFiles)
	}
	lines, err := d.lines(path)
	if err != nil {
		return err
	}
	open = append(slices.Clone(open), path)
	blocks := []line{}
	for _, l := range lines {
		inside := block
		if n := len(blocks); n > 0 {
			inside = strings.Join(blocks[n-1].words[:2], " ")
		}
		switch keyword := strings.ToUpper(l.words[0]); keyword {
		case "$INCLUDE", "$INCLUDE-":
			d.included(l, keyword == "$INCLUDE-", open, inside)
		case "ATTRIBUTE":
			d.attribute(l, inside)
		case "VALUE":
			d.value(l)
		case "VENDOR":
			d.vendor(l)
		case "BEGIN-VENDOR", "BEGIN-TLV", "BEGIN-PROTOCOL", "BEGIN":
			if len(l.words) < 2 {
				d.wrong(l, "%s says not what begins: want %s NAME", keyword, keyword)
			} else if !transparent(l) {
				blocks = append(blocks, l)
			}
		case "END-VENDOR", "END-TLV", "END-PROTOCOL", "END":
			if len(blocks) > 0 && !transparent(l) {
				blocks = blocks[:len(blocks)-1]
			}
		}
	}
	for _, l := range blocks {
		d.wrong(l, "%s %s has no end: want END%s %s behind its last line", l.words[0], l.words[1], strings.ToUpper(l.words[0])[len("BEGIN"):], l.words[1])
	}
	return nil
}

// transparent says whether a block holds plain attributes: newer files of FreeRADIUS put a
// frame around all of RADIUS.
func transparent(l line) bool {
	return strings.HasSuffix(strings.ToUpper(l.words[0]), "-PROTOCOL") && len(l.words) > 1 && strings.EqualFold(l.words[1], "RADIUS")
}

func (d *dictionaryReader) included(l line, optional bool, open []string, block string) {
	if len(l.words) < 2 {
		d.wrong(l, "$INCLUDE without a file: want $INCLUDE FILE")
		return
	}
	path := beside(l.file, l.words[1])
	if err := d.include(path, open, block); err != nil && !optional {
		d.wrong(l, "$INCLUDE %s (%s): %v", l.words[1], path, err)
	}
}

// beside is a path as the file means it that names it.
func beside(file, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(filepath.Dir(file), path)
}

// attribute reads `ATTRIBUTE name number type [flags or vendor]`.
func (d *dictionaryReader) attribute(l line, block string) {
	if len(l.words) < 4 {
		d.wrong(l, "ATTRIBUTE has too few words: want ATTRIBUTE NAME NUMBER TYPE")
		return
	}
	name, number := l.words[1], l.words[2]
	kind, _, _ := strings.Cut(strings.ToLower(l.words[3]), "#")
	def := Definition{Type: kind, File: l.file, Line: l.n}
	switch {
	case block != "":
		def.Why = "it stands inside of " + block
	case d.ofVendor(l.words[4:]):
		def.Why = "it is an attribute of the vendor " + l.words[4]
	case strings.Contains(number, "."):
		def.Why = "it is part of another attribute"
	default:
		n, err := parseNumber(number)
		switch {
		case err != nil || n == 0:
			d.wrong(l, "ATTRIBUTE %s has the number %q: want 1 to 255", name, number)
			return
		case n > math.MaxUint8:
			def.Why = "numbers above 255 are not sent"
		default:
			def.Number = byte(n)
		}
	}
	key := strings.ToLower(name)
	if old := d.attributes[key]; old.Number == 0 || def.Number != 0 { // the last one counts
		d.attributes[key] = def
	}
}

// ofVendor says whether the words behind a type name a vendor, as older clients' files do.
func (d *dictionaryReader) ofVendor(flags []string) bool {
	if len(flags) == 0 {
		return false
	}
	word := strings.ToLower(flags[0])
	return strings.HasPrefix(word, "vendor=") || d.vendors[word]
}

// value reads `VALUE attribute name number`.
func (d *dictionaryReader) value(l line) {
	if len(l.words) < 4 {
		d.wrong(l, "VALUE has too few words: want VALUE ATTRIBUTE NAME NUMBER")
		return
	}
	if !strings.EqualFold(l.words[1], "Acct-Status-Type") {
		return
	}
	n, err := parseNumber(l.words[3])
	if err != nil {
		d.wrong(l, "VALUE %s of Acct-Status-Type has the number %q: want 0 to 4294967295", l.words[2], l.words[3])
		return
	}
	d.values[strings.ToLower(l.words[2])] = n
}

// vendor reads `VENDOR name number [format]`.
func (d *dictionaryReader) vendor(l line) {
	if len(l.words) < 3 {
		d.wrong(l, "VENDOR has too few words: want VENDOR NAME NUMBER")
		return
	}
	d.vendors[strings.ToLower(l.words[1])] = true
}

// parseNumber reads decimal numbers, and hexadecimal ones behind 0x.
func parseNumber(s string) (uint32, error) {
	base := 10
	if rest, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		s, base = rest, 16
	}
	n, err := strconv.ParseUint(s, base, 32)
	return uint32(n), err
}
