package control

import (
	"fmt"
	"strconv"
)

// HeaderError names the header that made a command unreadable.
type HeaderError struct {
	Name   string
	Offset int // into the value
	Text   string
}

func (e *HeaderError) Error() string {
	return fmt.Sprintf("header %s (offset %d): %s", e.Name, e.Offset, e.Text)
}

func missing(name string) error {
	return &HeaderError{Name: name, Text: "missing or empty"}
}

// DecodeUpdate reads the headers of an update. Call-ID, From tag, CSeq and type
// must be there; what only serves statistics (URIs, user agent) may be missing,
// because no call should lose its media for it. An unreadable media header is a
// *MediaError, everything else a *HeaderError.
func DecodeUpdate(hs []Header) (Update, error) {
	var u Update
	var ok bool
	if u.CallID, ok = get(hs, "call_id"); !ok {
		return u, missing("call_id")
	}
	if u.FromTag, ok = get(hs, "from_tag"); !ok {
		return u, missing("from_tag")
	}
	switch kind, _ := get(hs, "type"); kind {
	case "request":
		u.Kind = KindRequest
	case "reply":
		u.Kind = KindReply
	case "":
		return u, missing("type")
	default:
		return u, &HeaderError{Name: "type", Text: fmt.Sprintf("%.40q is neither request nor reply", kind)}
	}
	cseq, ok := get(hs, "cseq")
	if !ok {
		return u, missing("cseq")
	}
	n, err := strconv.ParseUint(cseq, 10, 32)
	if err != nil {
		return u, &HeaderError{Name: "cseq", Text: fmt.Sprintf("%.40q is not a number below 2^32", cseq)}
	}
	u.CSeq = uint32(n)
	u.ToTag, _ = get(hs, "to_tag")
	u.FromURI, _ = get(hs, "from_uri")
	u.ToURI, _ = get(hs, "to_uri")
	u.UserAgent, _ = get(hs, "user_agent")
	u.DialogID, _ = get(hs, "dialog_id")
	u.MediaRelay, _ = get(hs, "media_relay")
	if s, ok := get(hs, "signaling_ip"); ok {
		u.Signaling = ParseSignaling(s)
	}
	if s, ok := get(hs, "media"); ok {
		if u.Media, err = ParseMedia(s); err != nil {
			return u, err
		}
		u.HasMedia = len(u.Media) > 0
	}
	return u, nil
}

// DecodeRemove reads the headers of a remove. Only the Call-ID must be there:
// the tags are whatever the last message of the call had.
func DecodeRemove(hs []Header) (Remove, error) {
	var r Remove
	var ok bool
	if r.CallID, ok = get(hs, "call_id"); !ok {
		return r, missing("call_id")
	}
	r.FromTag, _ = get(hs, "from_tag")
	r.ToTag, _ = get(hs, "to_tag")
	return r, nil
}

// Headers returns the update as a module sends it: in its order, empty values
// written out, and no media line without media.
func (u Update) Headers() []Header {
	kind := "request"
	if u.Kind == KindReply {
		kind = "reply"
	}
	hs := []Header{
		{"type", kind},
		{"dialog_id", u.DialogID},
		{"call_id", u.CallID},
		{"cseq", strconv.FormatUint(uint64(u.CSeq), 10)},
		{"from_uri", u.FromURI},
		{"to_uri", u.ToURI},
		{"from_tag", u.FromTag},
		{"to_tag", u.ToTag},
		{"user_agent", u.UserAgent},
		{"signaling_ip", u.Signaling.String()},
		{"media_relay", u.MediaRelay},
	}
	if u.HasMedia {
		hs = append(hs, Header{"media", string(AppendMedia(nil, u.Media))})
	}
	return hs
}

// Headers returns the remove as a module sends it.
func (r Remove) Headers() []Header {
	return []Header{{"call_id", r.CallID}, {"from_tag", r.FromTag}, {"to_tag", r.ToTag}}
}
