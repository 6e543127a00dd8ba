// Package mi is the format in which SIP proxies take commands of other programs:
// JSON-RPC 2.0, one object in a datagram, as OpenSIPS (module mi_datagram) and Kamailio
// (module jsonrpcs) speak it, and the words by which they know a dialog.
package mi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// Request is one command. Params are strings or integers, in the order that the command
// wants; their names play no part.
type Request struct {
	ID     string
	Method string
	Params []any
}

// Append appends the request as one line without its end.
func Append(dst []byte, r Request) ([]byte, error) {
	params := r.Params
	if params == nil {
		params = []any{}
	}
	b, err := json.Marshal(struct {
		Version string `json:"jsonrpc"`
		ID      string `json:"id"`
		Method  string `json:"method"`
		Params  []any  `json:"params"`
	}{"2.0", r.ID, r.Method, params})
	if err != nil {
		return dst, fmt.Errorf("write %s: %w", r.Method, err)
	}
	return append(dst, b...), nil
}

// Reply is what a command came to.
type Reply struct {
	ID      string // of its request; empty: the proxy could not say
	Code    int    // 0: done
	Message string // with a Code
}

// Done says whether the command was carried out.
func (r Reply) Done() bool { return r.Code == 0 }

// NotFound is the Code for a dialog that the proxy does not have.
const NotFound = 404

// Parse reads a datagram. OpenSIPS says in plain text what its parser thought of a
// request ("400 Parse_error").
func Parse(datagram []byte) (Reply, error) {
	text := bytes.TrimSpace(datagram)
	if code, message, ok := plain(text); ok {
		return Reply{Code: code, Message: message}, nil
	}
	var doc struct {
		ID     json.RawMessage `json:"id"`
		Result json.RawMessage `json:"result"`
		Error  *struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		if at := (&json.SyntaxError{}); errors.As(err, &at) {
			return Reply{}, fmt.Errorf("offset %d: %w", at.Offset, err)
		}
		return Reply{}, err
	}
	r := Reply{ID: identity(doc.ID)}
	switch {
	case doc.Error != nil && doc.Error.Code == 0:
		return Reply{}, errors.New("an error with the code 0")
	case doc.Error != nil:
		r.Code, r.Message = doc.Error.Code, doc.Error.Message
	case len(doc.Result) == 0:
		return Reply{}, errors.New("neither result nor error")
	}
	return r, nil
}

// plain reads a line of three digits and a reason.
func plain(text []byte) (code int, message string, ok bool) {
	if len(text) < 3 || len(text) > 3 && text[3] != ' ' {
		return 0, "", false
	}
	code, err := strconv.Atoi(string(text[:3]))
	if err != nil || code < 100 {
		return 0, "", false
	}
	return code, string(bytes.TrimSpace(text[3:])), true
}

// identity is an id without its quotes: proxies give numbers back as numbers or strings.
func identity(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}
