package report

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"unicode/utf8"
)

// AppendSession does for a session what Append does for any document, without
// leaving anything behind for the garbage collector: monitoring reads thousands
// of them at a time in the process whose threads move packets. It writes the
// members of the struct in their order, the names and rules of its tags included.
func AppendSession(dst []byte, s *Session) ([]byte, error) {
	dst = appendText(append(dst, `{"call_id": `...), s.CallID)
	dst = appendText(append(dst, `, "from_tag": `...), s.FromTag)
	dst = appendText(append(dst, `, "from_uri": `...), s.FromURI)
	dst = appendOptional(append(dst, `, "to_tag": `...), s.ToTag)
	dst = appendText(append(dst, `, "to_uri": `...), s.ToURI)
	dst, err := appendOptionalFloat(append(dst, `, "start_time": `...), s.StartTime)
	if err != nil {
		return dst, err
	}
	dst = strconv.AppendInt(append(dst, `, "duration": `...), s.Duration, 10)
	dst = appendText(append(dst, `, "caller_ua": `...), s.CallerUA)
	dst = appendText(append(dst, `, "callee_ua": `...), s.CalleeUA)
	dst = appendOptional(append(dst, `, "username": `...), s.Username)
	if dst, err = appendStreams(append(dst, `, "streams": `...), s.Streams); err != nil {
		return dst, err
	}
	dst = appendUnlessEmpty(dst, `, "record_id": `, s.RecordID)
	dst = appendUnlessEmpty(dst, `, "reason": `, s.Reason)
	if s.Partial {
		dst = append(dst, `, "partial": true`...)
	}
	dst = appendUnlessEmpty(dst, `, "dialog_id": `, s.DialogID)
	dst = appendUnlessEmpty(dst, `, "relay": `, s.Relay)
	return append(dst, '}'), nil
}

func appendStreams(dst []byte, streams []Stream) (_ []byte, err error) {
	if streams == nil {
		return append(dst, "null"...), nil
	}
	dst = append(dst, '[')
	for i := range streams {
		if i > 0 {
			dst = append(dst, ',', ' ')
		}
		if dst, err = appendStream(dst, &streams[i]); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func appendStream(dst []byte, s *Stream) (_ []byte, err error) {
	dst = appendText(append(dst, `{"media_type": `...), s.MediaType)
	dst = appendText(append(dst, `, "status": `...), s.Status)
	dst = strconv.AppendInt(append(dst, `, "timeout_wait": `...), s.TimeoutWait, 10)
	dst = appendText(append(dst, `, "caller_codec": `...), s.CallerCodec)
	dst = appendText(append(dst, `, "callee_codec": `...), s.CalleeCodec)
	dst = strconv.AppendInt(append(dst, `, "start_time": `...), s.StartTime, 10)
	dst = strconv.AppendInt(append(dst, `, "end_time": `...), s.EndTime, 10)
	if dst, err = appendOptionalFloat(append(dst, `, "post_dial_delay": `...), s.PostDialDelay); err != nil {
		return dst, err
	}
	dst = strconv.AppendUint(append(dst, `, "caller_bytes": `...), s.CallerBytes, 10)
	dst = strconv.AppendUint(append(dst, `, "callee_bytes": `...), s.CalleeBytes, 10)
	dst = strconv.AppendUint(append(dst, `, "caller_packets": `...), s.CallerPackets, 10)
	dst = strconv.AppendUint(append(dst, `, "callee_packets": `...), s.CalleePackets, 10)
	dst = appendText(append(dst, `, "caller_local": `...), s.CallerLocal)
	dst = appendText(append(dst, `, "callee_local": `...), s.CalleeLocal)
	dst = appendText(append(dst, `, "caller_remote": `...), s.CallerRemote)
	dst = appendText(append(dst, `, "callee_remote": `...), s.CalleeRemote)
	if s.Caller != nil {
		if dst, err = appendQuality(append(dst, `, "caller_quality": `...), s.Caller); err != nil {
			return dst, err
		}
	}
	if s.Callee != nil {
		if dst, err = appendQuality(append(dst, `, "callee_quality": `...), s.Callee); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func appendQuality(dst []byte, q *Quality) (_ []byte, err error) {
	dst = strconv.AppendInt(append(dst, `{"lost": `...), q.Lost, 10)
	if dst, err = appendFloat(append(dst, `, "jitter_ms": `...), q.JitterMS); err != nil {
		return dst, err
	}
	dst = strconv.AppendUint(append(dst, `, "refused": `...), q.Refused, 10)
	if dst, err = appendFloat(append(dst, `, "silent": `...), q.Silent); err != nil {
		return dst, err
	}
	dst = appendText(append(dst, `, "mover": `...), q.Mover)
	return append(dst, '}'), nil
}

func appendOptional(dst []byte, s *string) []byte {
	if s == nil {
		return append(dst, "null"...)
	}
	return appendText(dst, *s)
}

func appendUnlessEmpty(dst []byte, name, s string) []byte {
	if s == "" {
		return dst
	}
	return appendText(append(dst, name...), s)
}

func appendOptionalFloat(dst []byte, f *float64) ([]byte, error) {
	if f == nil {
		return append(dst, "null"...), nil
	}
	return appendFloat(dst, *f)
}

// appendFloat writes a number as encoding/json does, which is as ECMAScript does.
func appendFloat(dst []byte, f float64) ([]byte, error) {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return dst, fmt.Errorf("encode a document: %w",
			&json.UnsupportedValueError{Value: reflect.ValueOf(f), Str: strconv.FormatFloat(f, 'g', -1, 64)})
	}
	size := math.Abs(f)
	if size == 0 || size >= 1e-6 && size < 1e21 {
		return strconv.AppendFloat(dst, f, 'f', -1, 64), nil
	}
	dst = strconv.AppendFloat(dst, f, 'e', -1, 64)
	if n := len(dst); dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' { // e-09 is e-9
		dst[n-2] = dst[n-1]
		dst = dst[:n-1]
	}
	return dst, nil
}

const hexDigits = "0123456789abcdef"

// appendText writes a string of JSON in nothing but ASCII.
func appendText(dst []byte, s string) []byte {
	dst = append(dst, '"')
	written := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[written:i]...)
		r, size := rune(c), 1
		if c >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
		}
		i += size
		written = i
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = appendEscaped(dst, r)
		}
	}
	return append(append(dst, s[written:]...), '"')
}

func appendEscaped(dst []byte, r rune) []byte {
	if r >= 1<<16 {
		r -= 1 << 16
		return appendUnit(appendUnit(dst, 0xd800+(r>>10)), 0xdc00+(r&0x3ff))
	}
	return appendUnit(dst, r)
}

func appendUnit(dst []byte, r rune) []byte {
	return append(dst, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}
