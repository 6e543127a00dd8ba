package mi

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
)

func TestAppend(t *testing.T) {
	for _, c := range []struct {
		request Request
		want    string
	}{
		{Request{ID: "f6a88065", Method: "dlg_end_dlg", Params: []any{"13116830126763"}},
			`{"jsonrpc":"2.0","id":"f6a88065","method":"dlg_end_dlg","params":["13116830126763"]}`},
		{Request{ID: "1", Method: "dlg.end_dlg", Params: []any{int32(3054), int32(-4779)}},
			`{"jsonrpc":"2.0","id":"1","method":"dlg.end_dlg","params":[3054,-4779]}`},
		{Request{ID: "1", Method: "dlg.list"}, `{"jsonrpc":"2.0","id":"1","method":"dlg.list","params":[]}`},
	} {
		got, err := Append(nil, c.request)
		if err != nil || string(got) != c.want {
			t.Errorf("got %s, %v; want %s", got, err, c.want)
		}
	}
	if _, err := Append(nil, Request{Params: []any{math.NaN()}}); err == nil {
		t.Error("a number that JSON has not was written")
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		datagram string
		want     Reply
	}{
		{`{"jsonrpc":"2.0","result":"OK","id":"f6a88065"}`, Reply{ID: "f6a88065"}},
		{"{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t{\n\t},\n\t\"id\":\t1\n}\n", Reply{ID: "1"}},
		{`{"jsonrpc":"2.0","result":null,"id":"1"}`, Reply{ID: "1"}},
		{`{"jsonrpc":"2.0","error":{"code":404,"message":"Requested Dialog not found"},"id":"a"}`, Reply{"a", 404, "Requested Dialog not found"}},
		{`{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":null}`, Reply{"", -32601, "Method not found"}},
		{"400 Parse_error\n", Reply{"", 400, "Parse_error"}},
		{"500 Internal error", Reply{"", 500, "Internal error"}},
		{"500", Reply{"", 500, ""}},
	} {
		got, err := Parse([]byte(c.datagram))
		if err != nil || got != c.want {
			t.Errorf("%q: got %+v, %v; want %+v", c.datagram, got, err, c.want)
		}
	}
	for datagram, want := range map[string]string{
		"": "offset 0", "{": "offset 1", "nonsense": "offset 2", "[]": "cannot unmarshal array", `{"id": "1"}`: "neither result nor error",
		`{"error": {}, "id": "1"}`: "code 0", `{"error": {"code": "x"}}`: "cannot unmarshal", "099 early": "offset",
	} {
		if r, err := Parse([]byte(datagram)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want %q", datagram, r, err, want)
		}
	}
}

func TestDialogID(t *testing.T) {
	for _, c := range []struct {
		text          string
		entry, number int32
		decimal, hex  string
		pair          bool
	}{
		{"13116830126763", 3054, 4779, "13116830126763", "eeb.ba21", false},
		{"3054:4779", 3054, 4779, "13116830126763", "eeb.ba21", true},
		{"0:0", 0, 0, "0", "0.0", true},
		{"16:-1", 16, -1, strconv.FormatUint(16<<32|math.MaxUint32, 10), "01.ffffffff", true},
		{"16:4294967295", 16, -1, strconv.FormatUint(16<<32|math.MaxUint32, 10), "01.ffffffff", true},
	} {
		d, err := ParseDialogID(c.text)
		entry, number := d.Signed()
		if err != nil || entry != c.entry || number != c.number || d.Decimal() != c.decimal || d.Hexadecimal() != c.hex || d.Pair != c.pair {
			t.Errorf("%s: %+v, %v, %d %d %s %s", c.text, d, err, entry, number, d.Decimal(), d.Hexadecimal())
		}
	}
	for text, want := range map[string]string{
		"": "neither", "x": "neither", "-1": "neither", ":": "offset 0", "1:": "offset 2", "1:2:3": "offset 2", "4294967296:1": "offset 0", "1:-2147483649": "offset 2",
		"18446744073709551616": "neither",
	} {
		if d, err := ParseDialogID(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want %q", text, d, err, want)
		}
	}
}

// What is read as a reply has an end: it is done, or has a code; and JSON is at least what
// a JSON reader would make of it.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"jsonrpc":"2.0","result":"OK","id":"f6a88065"}`, `{"error":{"code":404,"message":"x"},"id":7}`, "400 Parse_error", "{}", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			if r != (Reply{}) {
				t.Fatalf("%+v with an error", r)
			}
			return
		}
		if r.Done() && (r.Message != "" || !json.Valid(b)) {
			t.Fatalf("%q was taken for done: %+v", b, r)
		}
	})
}

// A dialog id is the same in all its forms.
func FuzzDialogID(f *testing.F) {
	for _, s := range []string{"13116830126763", "3054:4779", "16:-1", ":", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDialogID(text)
		if err != nil {
			return
		}
		again, err := ParseDialogID(d.Decimal())
		if again.Pair = d.Pair; err != nil || again != d {
			t.Fatalf("%q: %+v, as a number %s: %+v, %v", text, d, d.Decimal(), again, err)
		}
		entry, number := d.Signed()
		again, err = ParseDialogID(strconv.Itoa(int(entry)) + ":" + strconv.Itoa(int(number)))
		if again.Pair = d.Pair; err != nil || again != d {
			t.Fatalf("%q: %+v, as a pair: %+v, %v", text, d, again, err)
		}
		var back [2]uint32
		for i, part := range strings.Split(d.Hexadecimal(), ".") {
			for j, digit := range part {
				n, err := strconv.ParseUint(string(digit), 16, 4)
				if err != nil {
					t.Fatal(err)
				}
				back[i] |= uint32(n) << (4 * j)
			}
		}
		if back != [2]uint32{d.Entry, d.Number} {
			t.Fatalf("%q: %s is %v", text, d.Hexadecimal(), back)
		}
	})
}
