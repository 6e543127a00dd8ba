// Package snapshot is the form of a record that one process writes and the next one
// reads: numbered fields, each of which may be missing.
//
//	record   fields in the order of their numbers
//	field    number<<1 | kind, uvarint | kind 0: value, uvarint
//	                                   | kind 1: length, uvarint | bytes
//
// What is zero is not written. A reader passes over numbers that it does not know and
// leaves alone what is missing, so fields may come and go; a number never gets another
// meaning.
//
// Writing and reading are one description, so that they cannot differ:
//
//	func (p *point) Fields(c *snapshot.Coder) {
//		snapshot.Int(c, 1, &p.x)
//		snapshot.Int(c, 2, &p.y)
//	}
//	record := snapshot.Append(nil, &p, (*point).Fields)
//	err := snapshot.Parse(record, &q, (*point).Fields)
package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Coder writes or reads the fields of one record.
type Coder struct {
	b       []byte // what was written, or what is left to read
	last    int    // number of the field before
	reading bool
	shift   time.Duration
	err     error
}

// Never is the Moment of what has not happened.
const Never = time.Duration(-1)

var (
	errCut  = errors.New("record ends within a field")
	errKind = errors.New("field is of another kind")
)

// Append appends the record of v.
func Append[T any](dst []byte, v *T, fields func(*T, *Coder)) []byte {
	c := Coder{b: dst}
	fields(v, &c)
	return c.b
}

// Parse reads a record into v.
func Parse[T any](record []byte, v *T, fields func(*T, *Coder)) error {
	c := Coder{b: record, reading: true}
	fields(v, &c)
	return c.err
}

// Reading says which way it goes.
func (c *Coder) Reading() bool { return c.reading }

// Fail makes reading return an error; fields that follow are left alone.
func (c *Coder) Fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// Err is the error so far.
func (c *Coder) Err() error { return c.err }

// Shift has all moments that are read from here on moved by d: clocks of two machine
// starts have nothing in common.
func (c *Coder) Shift(d time.Duration) { c.shift = d }

const (
	kindNumber = 0
	kindBytes  = 1
)

// put writes what stands before a value.
func (c *Coder) put(number int, kind uint64) {
	c.b = binary.AppendUvarint(c.b, uint64(number)<<1|kind)
}

// begin checks the order of fields, which reading relies on.
func (c *Coder) begin(number int) {
	if number <= c.last {
		panic(fmt.Sprintf("snapshot: field %d after %d", number, c.last)) // a bug of the description
	}
	c.last = number
}

// find steps to a field and says whether it is there. Fields before it are of a later
// version and not wanted.
func (c *Coder) find(number int, kind uint64) bool {
	for c.err == nil && len(c.b) > 0 {
		head, n := binary.Uvarint(c.b)
		if n <= 0 {
			c.Fail(errCut)
			break
		}
		if head>>1 > uint64(number) {
			break
		}
		c.b = c.b[n:]
		switch {
		case head == uint64(number)<<1|kind:
			return true
		case head>>1 == uint64(number):
			c.Fail(fmt.Errorf("field %d: %w", number, errKind))
		case head&1 == kindNumber:
			c.number()
		default:
			c.bytes()
		}
	}
	return false
}

func (c *Coder) number() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.Fail(errCut)
		c.b = nil
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *Coder) bytes() []byte {
	n := c.number()
	if c.err != nil || n > uint64(len(c.b)) {
		c.Fail(errCut)
		c.b = nil
		return nil
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

// Uint is a number that is not negative.
func (c *Coder) Uint(number int, v *uint64) {
	c.begin(number)
	switch {
	case c.reading && c.find(number, kindNumber):
		*v = c.number()
	case !c.reading && *v != 0:
		c.put(number, kindNumber)
		c.b = binary.AppendUvarint(c.b, *v)
	}
}

// Integer is any type of number.
type Integer interface {
	~int | ~int64 | ~int32 | ~uint8 | ~uint16 | ~uint32 | ~uint64
}

// Int is a number, which may be negative.
func Int[T Integer](c *Coder, number int, v *T) {
	n := uint64(int64(*v)<<1) ^ uint64(int64(*v)>>63) // small ones are short, below zero too
	c.Uint(number, &n)
	if c.reading {
		*v = T(int64(n>>1) ^ -int64(n&1))
	}
}

// Bool is yes or no.
func (c *Coder) Bool(number int, v *bool) {
	var n uint64
	if *v {
		n = 1
	}
	c.Uint(number, &n)
	if c.reading {
		*v = n != 0
	}
}

// Text is a string of any bytes.
func (c *Coder) Text(number int, v *string) {
	c.begin(number)
	switch {
	case c.reading && c.find(number, kindBytes):
		*v = string(c.bytes())
	case !c.reading && *v != "":
		c.put(number, kindBytes)
		c.b = binary.AppendUvarint(c.b, uint64(len(*v)))
		c.b = append(c.b, *v...)
	}
}

// Addr is an address; the zero Addr is none.
func (c *Coder) Addr(number int, v *netip.Addr) {
	c.begin(number)
	switch {
	case c.reading && c.find(number, kindBytes):
		if b := c.bytes(); c.err == nil && v.UnmarshalBinary(b) != nil {
			c.Fail(fmt.Errorf("field %d: %d bytes are no address", number, len(b)))
		}
	case !c.reading && v.IsValid():
		at := c.open(number)
		c.b, _ = v.AppendBinary(c.b) // cannot fail
		c.close(at)
	}
}

// AddrPort is an address and port.
func (c *Coder) AddrPort(number int, v *netip.AddrPort) {
	c.begin(number)
	switch {
	case c.reading && c.find(number, kindBytes):
		if b := c.bytes(); c.err == nil && v.UnmarshalBinary(b) != nil {
			c.Fail(fmt.Errorf("field %d: %d bytes are no address and port", number, len(b)))
		}
	case !c.reading && *v != netip.AddrPort{}:
		at := c.open(number)
		c.b, _ = v.AppendBinary(c.b) // cannot fail
		c.close(at)
	}
}

// Time is a time of the wall clock, to the nanosecond.
func (c *Coder) Time(number int, v *time.Time) {
	var n int64
	if !v.IsZero() {
		n = v.UnixNano()
	}
	Int(c, number, &n)
	if c.reading && n != 0 {
		*v = time.Unix(0, n)
	}
}

// Moment is a time on the host's monotonic clock. Zero and Never stay what they are when
// others are shifted.
func (c *Coder) Moment(number int, v *time.Duration) {
	Int(c, number, v)
	if c.reading && *v != 0 && *v != Never {
		*v += c.shift
	}
}

// open begins a field of bytes whose length is not known yet.
func (c *Coder) open(number int) (at int) {
	c.put(number, kindBytes)
	return len(c.b)
}

// close puts the length before what was written since open.
func (c *Coder) close(at int) {
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(len(c.b)-at))
	c.b = append(c.b, length[:n]...)
	copy(c.b[at+n:], c.b[at:len(c.b)-n])
	copy(c.b[at:], length[:n])
}

// within reads a record inside this one.
func within[T any](c *Coder, record []byte, v *T, fields func(*T, *Coder)) {
	rest, last := c.b, c.last
	c.b, c.last = record, 0
	fields(v, c)
	c.b, c.last = rest, last
}

// write writes a record inside this one.
func write[T any](c *Coder, number int, v *T, fields func(*T, *Coder)) {
	at, last := c.open(number), c.last
	c.last = 0
	fields(v, c)
	c.last = last
	c.close(at)
}

// Nested is a record inside this one.
func Nested[T any](c *Coder, number int, v *T, fields func(*T, *Coder)) {
	c.begin(number)
	switch {
	case c.reading && c.find(number, kindBytes):
		within(c, c.bytes(), v, fields)
	case !c.reading:
		write(c, number, v, fields)
	}
}

// Pointer is a record inside this one that may be missing.
func Pointer[T any](c *Coder, number int, v **T, fields func(*T, *Coder)) {
	c.begin(number)
	switch {
	case c.reading && c.find(number, kindBytes):
		*v = new(T)
		within(c, c.bytes(), *v, fields)
	case !c.reading && *v != nil:
		write(c, number, *v, fields)
	}
}

// List is any number of records inside this one.
func List[T any](c *Coder, number int, list *[]T, fields func(*T, *Coder)) {
	c.begin(number)
	if !c.reading {
		for i := range *list {
			write(c, number, &(*list)[i], fields)
		}
		return
	}
	for c.find(number, kindBytes) {
		var v T
		within(c, c.bytes(), &v, fields)
		*list = append(*list, v)
	}
}
