package ctl

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	firstCall = `{"call_id": "c1\n=1+1, \"x\"", "from_tag": "f", "from_uri": "alice@example.com", "to_tag": null, "to_uri": "bob@example.com", "start_time": 1700000000.311634, "duration": 61, ` +
		`"caller_ua": "UA \u00e4", "callee_ua": "UB", "username": null, "streams": [` + firstStream + `, ` + firstStream + `], "timed_out": false, "dialog_id": "1:2", "reason": "removed", "record_id": "r1", "x": [1, 2]}`
	firstStream = `{"media_type": "audio", "status": "closed", "timeout_wait": 0, "caller_codec": "G711u", "callee_codec": "Dynamic(101)", "start_time": 0, "end_time": 61, "post_dial_delay": 1.0065, ` +
		`"caller_bytes": 1000, "callee_bytes": 18446744073709551615, "caller_packets": 10, "callee_packets": 20, "caller_local": "203.0.113.9:50000", "callee_local": "203.0.113.9:50002", "caller_remote": "198.51.100.7:9000", "callee_remote": "Unknown"}`
	secondCall = `{"call_id": "c2", "from_tag": "f", "start_time": null, "streams": []}`
)

// Pages are read until one is empty, whatever is left out of them.
func TestExport(t *testing.T) {
	since := time.Date(2026, 11, 21, 8, 0, 0, 0, time.Local).Unix()
	f := &fakeDispatcher{answers: map[string]string{
		"stored":                              `[{"id": 3, "call": ` + firstCall + `}, {"id": 7}]` + "\r\n",
		"stored after=7":                      `[{"id": 8, "call": ` + secondCall + `}]` + "\r\n",
		"stored after=8":                      `[{"id": 9, "call": {"duration": "long"}}]` + "\r\n",
		"stored after=9":                      "[]\r\n",
		fmt.Sprintf("stored since=%d", since): `[{"id": 5}]` + "\r\n",
		fmt.Sprintf("stored after=5 since=%d", since): `[{"id": 6, "unreadable": true}]` + "\r\n",
		fmt.Sprintf("stored after=6 since=%d", since): "[]\r\n",
	}}
	dir := f.onSocket(t)
	for _, c := range []struct {
		name string
		args []string
		code int
		want string // part of the error
	}{
		{"export.csv", []string{"--csv"}, 1, "left out: 1, the last with id 9"},
		{"export.json", []string{"--json"}, 0, ""},
		{"export-since.csv", []string{"--csv", "--since", "2026-11-21T08:00"}, 1, "left out: 1, the last with id 6"},
		{"export-nothing", []string{}, exitUsage, "one of --csv and --json"},
		{"export-nothing", []string{"--csv", "--json"}, exitUsage, "one of --csv and --json"},
		{"export-nothing", []string{"--csv", "--since", "yesterday"}, exitUsage, `"yesterday": want a day`},
	} {
		out, code, err := run(t, append([]string{"--runtime-dir", dir, "accounting", "export"}, c.args...)...)
		if code != c.code || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: exit code %d, %v", c.args, code, err)
		}
		golden(t, c.name, out)
	}
	none := (&fakeDispatcher{answers: map[string]string{"stored": "error finished calls are not in a database\r\n"}}).onSocket(t)
	if _, code, err := run(t, "--runtime-dir", none, "accounting", "export", "--json"); code != 1 || !strings.Contains(fmt.Sprint(err), "not in a database") {
		t.Errorf("without a database: exit code %d, %v", code, err)
	}
	endless := (&fakeDispatcher{answers: map[string]string{"stored": "[{\"id\": 1}]\r\n", "stored after=1": "[{\"id\": 1}]\r\n"}}).onSocket(t)
	if _, code, err := run(t, "--runtime-dir", endless, "accounting", "export", "--json"); code != 1 || !strings.Contains(fmt.Sprint(err), "again") {
		t.Errorf("a dispatcher that goes around: exit code %d, %v", code, err)
	}
}
