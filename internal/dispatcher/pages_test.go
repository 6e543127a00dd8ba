package dispatcher

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/manage"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// inPages answers `sessions` in pages, as our relays do.
func inPages(t *testing.T, docs []report.Session) relayOption {
	return handling(func(c relaylink.Command) (string, bool) {
		if c.Name != relaylink.Sessions {
			return "", false
		}
		limit, err := strconv.Atoi(get(c, relaylink.HeaderLimit))
		if err != nil || limit != nearPage {
			t.Errorf("sessions with limit %q", get(c, relaylink.HeaderLimit))
		}
		after, _ := strconv.Atoi(get(c, relaylink.HeaderAfter))
		return aPage(docs, after, limit, get(c, relaylink.HeaderPlain) == "yes"), true
	})
}

func aPage(docs []report.Session, after, limit int, plain bool) string {
	line := relaylink.OpenPage(nil)
	end := min(after+limit, len(docs))
	for i, doc := range docs[after:end] {
		if i > 0 {
			line = append(line, ", "...)
		}
		if plain {
			doc = doc.Plain()
		}
		line = append(line, docText(doc)...)
	}
	if end == len(docs) {
		end = 0
	}
	return string(relaylink.ClosePage(line, uint64(end)))
}

func sessionDocs(name string, n int) (docs []report.Session) {
	for i := range n {
		doc := sessionDoc(fmt.Sprintf("%s-%d", name, i), "f")
		doc.DialogID, doc.Relay = "1:2", name
		doc.Streams[0].Caller = &report.Quality{Lost: int64(i)}
		docs = append(docs, doc)
	}
	return docs
}

// list reads an answer as a client does.
func (m *module) list(command string) []json.RawMessage {
	m.t.Helper()
	m.send(command + "\r\n")
	answer, err := manage.ReadAnswer(func() ([]byte, error) { return []byte(m.receive()), nil })
	if err != nil || answer.Error != "" {
		m.t.Fatalf("%s: %s %v", command, answer.Error, err)
	}
	return answer.Docs
}

func TestSessionsOfAllKindsOfRelays(t *testing.T) {
	for format, name := range map[manage.Format]string{manage.Array: "array", manage.Lines: "lines"} {
		t.Run(name, func(t *testing.T) {
			u := start(t, func(c *Config) { c.ManagementFormat = format })
			a, b, c := sessionDocs("a", 2*nearPage+10), sessionDocs("b", nearPage), sessionDocs("c", 3)
			u.relay("b", inPages(t, b))
			u.relay("a", inPages(t, a))
			u.relay("d", inPages(t, nil))
			u.relay("c", handling(func(cmd relaylink.Command) (string, bool) { // link/2 before there were pages
				docs := slices.Clone(c)
				for i := range docs {
					if get(cmd, relaylink.HeaderPlain) == "yes" {
						docs[i] = docs[i].Plain()
					}
				}
				return docText(docs), cmd.Name == relaylink.Sessions
			}))
			u.relay("127.0.0.1", plainFrom("127.0.0.1"), having(relaylink.Call{CallID: "old", FromTag: "f"}))
			var want []string
			for _, doc := range slices.Concat([]report.Session{sessionDoc("old", "f")}, a, b, c) { // by address, then by name
				want = append(want, docText(doc.Plain()))
			}
			op := u.manager()
			for range 2 {
				var got []string
				for _, doc := range op.list("sessions") {
					got = append(got, string(doc))
				}
				if !slices.Equal(got, want) {
					t.Errorf("got %d sessions, want %d:\n%s\nwant\n%s", len(got), len(want), got, want)
				}
			}
			if got := len(op.list("sessions order=call_id")); got != len(want) {
				t.Errorf("ordered: %d sessions, want %d", got, len(want))
			}
			if got := len(op.list("sessions relay=a from=ALICE")); got != len(a) {
				t.Errorf("of one relay: %d sessions, want %d", got, len(a))
			}
			var first report.Session
			if err := json.Unmarshal(op.list("sessions relay=b limit=1")[0], &first); err != nil || first.DialogID != "1:2" || first.Relay != "b" {
				t.Errorf("in full: %+v, %v", first, err)
			}
		})
	}
}

// A relay that fails midway is left out from there on where its first sessions are
// with the client already, else altogether; the answer can be read, and the log
// says what it lacks.
func TestRelayFailsBetweenPages(t *testing.T) {
	docs := sessionDocs("a", 2*nearPage)
	for name, second := range map[string]string{
		"refusal": "error no", "nonsense": `{"sessions": [{]}`, "a page that leads back": fmt.Sprintf(`{"sessions": [], "next": %d}`, nearPage), "no page": `{}`, "silence": "",
	} {
		t.Run(name, func(t *testing.T) {
			u := start(t, nil)
			u.relay("a", handling(func(c relaylink.Command) (string, bool) {
				if c.Name != relaylink.Sessions {
					return "", false
				}
				if get(c, relaylink.HeaderAfter) == "" {
					return aPage(docs, 0, nearPage, true), true
				}
				if second == "" {
					u.pass(6 * time.Second) // past relay_timeout
				}
				return second, true
			}))
			u.relay("b", inPages(t, sessionDocs("b", 5)))
			op := u.manager()
			if got := op.list("sessions"); len(got) != nearPage+5 || !strings.Contains(string(got[nearPage]), "b-0") {
				t.Errorf("%d sessions, want %d", len(got), nearPage+5)
			}
			if !u.logged("relay left out of the rest of an answer to an operator") || !u.logged(fmt.Sprint("sessions=", nearPage)) {
				t.Error("the log does not say so")
			}
			if got := op.list("sessions order=start"); len(got) != 5 {
				t.Errorf("ordered: %d sessions, want those of the other relay", len(got))
			}
			if u.logged("bug in this program") {
				t.Error("a bug")
			}
		})
	}
}

// A client that goes away ends its reading. Set-ups do not wait for one.
func TestReadingEndsWithItsClient(t *testing.T) {
	u := start(t, nil)
	docs := sessionDocs("a", nearPage)
	r := u.relay("a", handling(func(c relaylink.Command) (string, bool) {
		after, _ := strconv.Atoi(get(c, relaylink.HeaderAfter))
		page := strings.TrimSuffix(aPage(docs, 0, nearPage, true), "}") + fmt.Sprintf(`, "next": %d}`, after+1)
		return page, c.Name == relaylink.Sessions // and so on for ever
	}))
	op, m := u.manager(), u.module()
	op.send("sessions\r\n")
	eventually(t, "some pages", func() bool { return r.count(relaylink.Sessions) > 3 })
	for i := range 20 {
		begun := time.Now()
		if got := m.ask(offer(fmt.Sprint("c", i))); got != ports || time.Since(begun) > DefaultRelayTimeout/2 {
			t.Errorf("set-up: %q after %v", got, time.Since(begun))
		}
	}
	op.conn.Close()
	eventually(t, "the reading ends", func() bool {
		u.managerConns.mu.Lock()
		defer u.managerConns.mu.Unlock()
		return len(u.managerConns.open) == 0
	})
}

// A relay on this host that moves packets itself is read slowly, but not for ever.
func TestPauses(t *testing.T) {
	for _, c := range []struct {
		own      float64
		sessions int
		took     time.Duration
		want     time.Duration
	}{
		{0, 4500, 0, leastPause},
		{0, 4500, time.Second, mostPause},
		{calmFrom - 1, 4500, 0, leastPause},
		{10000, 4500, 0, calmPause},
		{10000, 0, 0, calmPause},
		{10000, 20000, 0, calmReading * nearPage / 20000},
		{10000, 1000000, 0, leastPause},
	} {
		u := start(t, nil)
		r := u.relay("a", greeting(func(h *relaylink.RelayHello) { h.Load.OwnPackets, h.Load.Sessions = c.own, c.sessions }))
		l, _, _ := u.registry.current(u.registry.find(r.name))
		if got := l.pauseAfter(c.took); got != c.want {
			t.Errorf("%v packets/s, %d sessions, a page in %v: pause %v, want %v", c.own, c.sessions, c.took, got, c.want)
		}
		u.stop()
	}
}

// Several readings together turn no more pages than one.
func TestReadingsShareTheirPauses(t *testing.T) {
	u := start(t, nil)
	const n = 8
	begun := time.Now()
	var resting sync.WaitGroup
	for range n {
		resting.Go(func() { u.rest(leastPause) })
	}
	resting.Wait()
	if took := time.Since(begun); took < n*leastPause {
		t.Errorf("%d pauses of %v took %v", n, leastPause, took)
	}
}
