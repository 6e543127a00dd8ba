package accounting

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// piece writes a document of a call; what is empty is left out.
func piece(id, start string, duration int, rest string, streams ...string) string {
	record := ""
	if id != "" {
		record = fmt.Sprintf(`, "record_id": %q`, id)
	}
	return fmt.Sprintf(`{"call_id": "c", "to_tag": null, "start_time": %s, "duration": %d, "callee_ua": "Unknown", "streams": [%s]%s%s}`,
		start, duration, strings.Join(streams, ", "), record, rest)
}

func stream(from, to, bytes int) string {
	return fmt.Sprintf(`{"media_type": "audio", "start_time": %d, "end_time": %d, "caller_bytes": %d}`, from, to, bytes)
}

func TestMerge(t *testing.T) {
	one := piece("r1", "1000.25", 60, `, "reason": "relay stopped", "timed_out": true, "dialog_id": "1:2", "all_streams_ice": false`, stream(0, 60, 1))
	two := piece("r2", "1050.5", 20, `, "reason": "removed", "x": {"y":[1,2]}, "timed_out": false, "dialog_id": "1:3"`, stream(0, 20, 2), stream(5, 20, 3))
	both := piece("r1", "1000.25", 70, `, "reason": "removed", "timed_out": false, "dialog_id": "1:3", "x": {"y": [1, 2]}, "record_ids": ["r1", "r2"]`, stream(0, 60, 1), stream(50, 70, 2), stream(55, 70, 3))
	part := one[:len(one)-1] + `, "partial": true}`
	original := piece("", "1000.25", 60, `, "timed_out": true`, stream(0, 60, 1))
	for _, c := range []struct{ name, stored, added, want string }{
		{"two parts", one, two, both},
		{"the later one came first", two, one, both},
		{"it is in already", both, two, both},
		{"it is there already", one, one, one},
		{"the whole for its part", part, one, one},
		{"the part of a whole", one, part, one},
		{"a part and another whole", part, two, both[:len(both)-1] + `, "partial": true}`},
		{"the whole comes too late", both[:len(both)-1] + `, "partial": true}`, one, both[:len(both)-1] + `, "partial": true}`},
		{"the original's", original, two, piece("", "1000.25", 70, `, "timed_out": false, "x": {"y": [1, 2]}, "dialog_id": "1:3", "reason": "removed", "record_ids": ["r2"]`, stream(0, 60, 1), stream(50, 70, 2), stream(55, 70, 3))},
		{"never answered", piece("r1", "null", 0, ""), two, strings.Replace(two[:len(two)-1], `{"y":[1,2]}`, `{"y": [1, 2]}`, 1) + `, "record_ids": ["r1", "r2"]}`},
		{"what the first did not learn", piece("r1", "1", 1, ""), `{"record_id": "r2", "to_tag": "t", "start_time": 1, "duration": 1, "callee_ua": "\u00e4", "streams": []}`,
			`{"call_id": "c", "to_tag": "t", "start_time": 1, "duration": 1, "callee_ua": "\u00e4", "streams": [], "record_id": "r1", "record_ids": ["r1", "r2"]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := merge([]byte(c.stored), []byte(c.added))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(c.want, ", "), strings.Split(string(got), ", ")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestMergeRefuses(t *testing.T) {
	good := piece("r1", "1", 1, "")
	for _, c := range []struct{ stored, added, want string }{
		{"", good, "the stored document: it is no JSON object"},
		{"base64==", good, "the stored document"},
		{"[]", good, "it is no JSON object"},
		{good + "{}", good, "the stored document"},
		{good, piece("", "1", 1, ""), "no record_id"},
		{good, piece("r2", "1e300", 1, ""), "start_time"},
		{good, piece("r2", "1", 1, "", `{"start_time": "x"}`), "stream 1: its start_time is no time"},
		{good, piece("r2", "1", 1, "", `1`), "stream 1"},
	} {
		if got, err := merge([]byte(c.stored), []byte(c.added)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("merge(%s, %s) = %s, %v, want %q", c.stored, c.added, got, err, c.want)
		}
	}
}

// totals are the bytes of all streams, and what has to hold of every document.
func totals(t *testing.T, doc []byte) (sum uint64) {
	t.Helper()
	var d struct {
		Streams []struct {
			Bytes uint64 `json:"caller_bytes"`
		} `json:"streams"`
	}
	if !json.Valid(doc) || bytes.ContainsAny(doc, "\r\n") || bytes.ContainsFunc(doc, func(r rune) bool { return r > 126 }) {
		t.Fatalf("document %q", doc)
	}
	if err := json.Unmarshal(doc, &d); err != nil {
		t.Fatal(err)
	}
	for _, s := range d.Streams {
		sum += s.Bytes
	}
	return sum
}

func FuzzMerge(f *testing.F) {
	f.Add(`"x": 1`, `"reason": "removed"`, 1000.5, 1050.25, 3.0, int64(60), int64(20), uint64(7), uint64(9), true)
	f.Add(`"record_ids": ["a"], "partial": false`, `"streams": 1`, -1.0, 0.0, 1e9, int64(0), int64(1), uint64(1), uint64(0), false)
	f.Add(`"a": "\ud800\u0000ä"`, `"timed_out": true, "dialog_id": null`, 0.5, 0.5, 0.5, int64(1), int64(1), uint64(1), uint64(1), true)
	f.Fuzz(checkMerge)
}

// checkMerge adds three parts of a call in every order: each counts once, whatever else is
// in the documents.
func checkMerge(t *testing.T, more, end string, s1, s2, s3 float64, d1, d2 int64, b1, b2 uint64, partial bool) {
	parts := [][]byte{}
	for i, p := range []struct {
		start    float64
		duration int64
		bytes    uint64
		more     string
	}{{s1, d1, b1, more}, {s2, d2, b2, end}, {s3, d1, b1 + b2, more}} {
		if math.IsNaN(p.start) || math.IsInf(p.start, 0) {
			return
		}
		if !json.Valid([]byte("{" + p.more + "}")) {
			x, _ := json.Marshal(p.more)
			p.more = `"x": ` + string(x)
		}
		text := fmt.Appendf(nil, `{"start_time": %g, "duration": %d, "streams": [{"start_time": 0, "end_time": %d, "caller_bytes": %d}], "partial": %v, %s, "record_id": "r%d"}`,
			p.start, p.duration, p.duration, p.bytes, partial && i == 0, p.more, i)
		o, err := parseObject(text)
		if err != nil || o.has("record_ids") {
			return
		}
		line, err := o.line()
		if _, bad := parsePart(line); err != nil || bad != nil {
			return
		}
		parts = append(parts, line)
	}
	add := func(stored []byte, added ...int) []byte { // nil: its streams are none
		for _, i := range added {
			merged, err := merge(stored, parts[i])
			if err != nil {
				return nil
			}
			totals(t, merged)
			again, err := merge(merged, parts[i])
			if err != nil || !bytes.Equal(again, merged) {
				t.Fatalf("added again %s: %s\n%s, %v", parts[i], merged, again, err)
			}
			stored = merged
		}
		return stored
	}
	want := totals(t, parts[0]) + totals(t, parts[1]) + totals(t, parts[2])
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		merged := add(parts[order[0]], order[1:]...)
		if merged == nil {
			return
		}
		if got := totals(t, merged); got != want {
			t.Fatalf("order %v: %d bytes, want %d: %s", order, got, want, merged)
		}
		if all := add(merged, order...); !bytes.Equal(all, merged) {
			t.Fatalf("order %v: again\n%s\n%s", order, merged, all)
		}
	}
}

// The fuzzer is slow here, because it watches all that is linked.
func TestMergeInAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	members := []string{`"x": {"y": [1]}`, `"reason": "removed", "timed_out": false`, `"timed_out": true, "all_streams_ice": false`, `"to_tag": null`, `"callee_ua": "Unknown"`, "ä\\\"\x00"}
	starts := []float64{0, -5, 1000.5, 1000.499, 1700000000.25, 1e9}
	for range 300 {
		start := func() float64 { return starts[r.IntN(len(starts))] + float64(r.IntN(3)) }
		checkMerge(t, members[r.IntN(len(members))], members[r.IntN(len(members))], start(), start(), start(),
			int64(r.IntN(100)), int64(r.IntN(100)), r.Uint64N(1<<60), r.Uint64N(1<<60), r.IntN(2) == 0)
	}
}
