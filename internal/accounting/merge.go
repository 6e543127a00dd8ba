package accounting

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"example.org/mediaproxy/internal/report"
)

// A table of the original has one row for a call, whatever happens to the call. When it was
// on two relays, or was reported in two parts, their documents become one here: it begins
// with the first part and ends as the last one did.

// endMembers say how a call ended.
var endMembers = []string{"timed_out", "dialog_id", "all_streams_ice", "reason"}

// merge adds a document to a stored one. A document that is in it already, by its record_id,
// changes nothing; one that is whole takes the place of its own first part.
func merge(stored, added []byte) ([]byte, error) {
	old, err := parsePart(stored)
	if err != nil {
		return nil, fmt.Errorf("the stored document: %w", err)
	}
	part, err := parsePart(added)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the added document: %w", err)
	case len(part.ids) != 1:
		return nil, errors.New("the added document has no record_id of its own")
	}
	if slices.Contains(old.ids, part.ids[0]) {
		if old.partial && !part.partial && !old.doc.has("record_ids") {
			return part.doc.line()
		}
		return stored, nil
	}
	first, last := old, part
	if part.start < old.start {
		first, last = part, old
	}
	return combine(first, last, old.partial || part.partial)
}

// part is a document of a call, or of some of it.
type part struct {
	doc      object
	ids      []string
	partial  bool
	start    float64 // UNIX seconds; infinite: never answered
	duration int64
	streams  []object
}

// latest bounds times, so that they can be counted with.
const latest = 1 << 40

func parsePart(text []byte) (p part, err error) {
	if p.doc, err = parseObject(text); err != nil {
		return p, err
	}
	var known struct {
		RecordID  string            `json:"record_id"`
		RecordIDs []string          `json:"record_ids"`
		Partial   bool              `json:"partial"`
		StartTime *float64          `json:"start_time"`
		Duration  int64             `json:"duration"`
		Streams   []json.RawMessage `json:"streams"`
	}
	if err := json.Unmarshal(text, &known); err != nil {
		return p, err
	}
	p.ids, p.partial, p.duration, p.start = known.RecordIDs, known.Partial, known.Duration, math.Inf(1)
	if len(p.ids) == 0 && known.RecordID != "" {
		p.ids = []string{known.RecordID}
	}
	if known.StartTime != nil {
		p.start = *known.StartTime
	}
	if known.StartTime != nil && math.Abs(p.start) > latest || p.duration < 0 || p.duration > latest {
		return p, errors.New("its start_time or duration is none")
	}
	for i, raw := range known.Streams {
		s, err := parseObject(raw)
		if err != nil {
			return p, fmt.Errorf("stream %d: %w", i+1, err)
		}
		p.streams = append(p.streams, s)
	}
	return p, nil
}

func combine(first, last part, partial bool) ([]byte, error) {
	doc := slices.Clone(first.doc)
	for _, m := range last.doc {
		if !doc.has(m.name) && !slices.Contains(endMembers, m.name) && m.name != "record_id" {
			doc = doc.set(m.name, m.value)
		}
	}
	for _, name := range endMembers {
		if value, ok := last.doc.get(name); ok {
			doc = doc.set(name, value)
		} else if last.doc.has("timed_out") { // it says how it ended, and this is not part of it
			doc = doc.without(name)
		}
	}
	doc = fillUnknown(doc, last.doc)
	shift := int64(0)
	if !math.IsInf(last.start, 0) {
		shift = int64(math.Round(last.start - first.start))
	}
	streams := append([]object{}, first.streams...)
	for i, s := range last.streams {
		moved, err := s.shifted(shift)
		if err != nil {
			return nil, fmt.Errorf("stream %d: %w", i+1, err)
		}
		streams = append(streams, moved)
	}
	ids := slices.Concat(first.ids, last.ids)
	slices.Sort(ids)
	for _, m := range []struct {
		name  string
		value any
	}{{"duration", max(first.duration, shift+last.duration)}, {"streams", streams}, {"record_ids", slices.Compact(ids)}} {
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		doc = doc.set(m.name, value)
	}
	doc = doc.without("partial")
	if partial {
		doc = doc.set("partial", json.RawMessage("true"))
	}
	return doc.line()
}

// fillUnknown takes what the first part did not learn from the last.
func fillUnknown(doc, last object) object {
	for i, m := range doc {
		switch string(m.value) {
		case "null", `""`, `"Unknown"`:
			if value, ok := last.get(m.name); ok && !slices.Contains(endMembers, m.name) {
				doc[i].value = value
			}
		}
	}
	return doc
}

// object is a JSON object whose members keep their order, and their values as they were
// written.
type object []member

type member struct {
	name  string
	value json.RawMessage
}

func parseObject(text []byte) (object, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.Join(errors.New("it is no JSON object"), err)
	}
	o := object{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		o = o.set(name.(string), value)
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object")
	}
	return o, nil
}

func (o object) index(name string) int {
	return slices.IndexFunc(o, func(m member) bool { return m.name == name })
}

func (o object) has(name string) bool { return o.index(name) >= 0 }

func (o object) get(name string) (json.RawMessage, bool) {
	if i := o.index(name); i >= 0 {
		return o[i].value, true
	}
	return nil, false
}

// set replaces a member in its place, or adds it behind the others.
func (o object) set(name string, value json.RawMessage) object {
	if i := o.index(name); i >= 0 {
		o[i].value = value
		return o
	}
	return append(o, member{name, value})
}

func (o object) without(name string) object {
	return slices.DeleteFunc(o, func(m member) bool { return m.name == name })
}

// shifted is a stream whose times count from an earlier start.
func (o object) shifted(seconds int64) (object, error) {
	moved := slices.Clone(o)
	for _, name := range []string{"start_time", "end_time"} {
		raw, ok := o.get(name)
		if !ok {
			continue
		}
		var at *int64
		if err := json.Unmarshal(raw, &at); err != nil || at != nil && (*at > latest || *at < -latest) {
			return nil, fmt.Errorf("its %s is no time", name)
		}
		if at != nil {
			moved = moved.set(name, fmt.Append(nil, *at+seconds))
		}
	}
	return moved, nil
}

// MarshalJSON writes the members in their order.
func (o object) MarshalJSON() ([]byte, error) {
	text := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			text = append(text, ',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		text = append(append(append(text, name...), ':'), m.value...)
	}
	return append(text, '}'), nil
}

// line writes a document as readers of the original know it.
func (o object) line() ([]byte, error) { return report.Append(nil, o) }
