package hangup

import (
	"slices"
	"strings"

	"example.org/mediaproxy/internal/wire/mi"
)

// form is one way to name a dialog to a proxy.
type form struct {
	method string
	params []any
	index  int // among those of OpenSIPS, -1: not one of them
}

// isUnknown says whether a refusal means that there is no such dialog. Kamailio's
// dlg.terminate_dlg has a code of its own for it.
func (f form) isUnknown(r mi.Reply) bool {
	return r.Code == mi.NotFound || f.method == terminateDialog && strings.Contains(r.Message, "find callid")
}

const (
	endDialog       = "dlg.end_dlg"       // Kamailio, by its own id
	terminateDialog = "dlg.terminate_dlg" // Kamailio, by the call's names
	openSIPSEnd     = "dlg_end_dlg"       // OpenSIPS, whose later name dialog:end_dlg has it as an alias
)

// forms of a dialog, the most promising first.
func (h *Hangup) forms(d Dialog) []form {
	id, err := mi.ParseDialogID(d.ID)
	kamailio := h.cfg.Dialect == Kamailio || h.cfg.Dialect == Auto && err == nil && id.Pair
	if kamailio {
		var forms []form
		if err == nil {
			entry, number := id.Signed()
			forms = append(forms, form{endDialog, []any{entry, number}, -1}) // in strings it would read 0
		}
		if d.CallID != "" && d.FromTag != "" && d.ToTag != "" {
			forms = append(forms, form{terminateDialog, []any{d.CallID, d.FromTag, d.ToTag}, -1})
		}
		return forms
	}
	// What dlg_end_dlg takes has changed: the decimal id in 3.0, the hexadecimal one since
	// 3.1, the Call-ID (its first dialog) always. The module sends the decimal one.
	names := [...]string{2: d.CallID}
	if err == nil {
		names[0], names[1] = id.Decimal(), id.Hexadecimal()
	}
	var forms []form
	for i, name := range names {
		if f := (form{openSIPSEnd, []any{name}, i}); name != "" {
			forms = append(forms, f)
		}
	}
	known := int(h.preferred.Load())
	slices.SortStableFunc(forms, func(a, b form) int {
		switch known {
		case a.index:
			return -1
		case b.index:
			return 1
		}
		return 0
	})
	return forms
}
