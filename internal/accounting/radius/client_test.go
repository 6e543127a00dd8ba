package radius

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func client(servers ...Server) *Client {
	return NewClient(Settings{Servers: servers, Timeout: 200 * time.Millisecond, Transmissions: 3, DeadTime: time.Hour})
}

// who makes a list with a name that tells exchanges apart.
func who() func(time.Time) List {
	n := 0
	return func(time.Time) (l List) {
		n++
		l.Text(UserName, fmt.Sprint("user", n))
		return l
	}
}

func TestRequest(t *testing.T) {
	s := newStub(t, "127.0.0.1", yes)
	c := client(s.server("testing"))
	for range 2 {
		if err := c.Send(t.Context(), who()); err != nil {
			t.Fatal(err)
		}
	}
	got := s.requests()
	if len(got) != 2 || hex.EncodeToString(got[0][20:]) != "01077573657231" || got[0][0] != 4 || int(got[0][3]) != len(got[0]) {
		t.Fatalf("sent %x", got)
	}
	unsigned := bytes.Clone(got[0])
	clear(unsigned[4:20])
	if sum := md5.Sum(append(unsigned, "testing"...)); !bytes.Equal(sum[:], got[0][4:20]) {
		t.Errorf("authenticator %x, want %x", got[0][4:20], sum)
	}
}

// A repeat has the same bytes; it is sent as often as the settings say.
func TestTransmissions(t *testing.T) {
	s := newStub(t, "127.0.0.1", func(request []byte, n int) [][]byte {
		if n < 3 {
			return nil
		}
		return yes(request, n)
	})
	if err := client(s.server("testing")).Send(t.Context(), who()); err != nil {
		t.Fatal(err)
	}
	for i, r := range s.requests() {
		if !bytes.Equal(r, s.requests()[0]) || i > 2 {
			t.Errorf("transmission %d: %x", i, r)
		}
	}
	silent := newStub(t, "127.0.0.1", never)
	err := client(silent.server("testing")).Send(t.Context(), who())
	want := "no answer from RADIUS server " + silent.addr.String() + " to 3 transmissions: it is away, or it drops them in silence because its secret is another than that in servers:1, or because 127.0.0.1 is not in its list of clients"
	if err == nil || err.Error() != want || silent.count(t, 3) != 3 {
		t.Errorf("%v after %d, want %s", err, len(silent.requests()), want)
	}
}

// Only the server's own answer to this request counts.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(request []byte) []byte
		want   string
	}{
		{"padded", func(r []byte) []byte { return append(response(5, r, "testing"), 0, 0, 0) }, ""},
		{"with attributes", func(r []byte) []byte { return response(5, r, "testing", 18, 4, 'o', 'k') }, ""},
		{"another secret", func(r []byte) []byte { return response(5, r, "guess") }, "answers, but with another secret than that in servers:1"},
		{"garbage", func(r []byte) []byte { return append([]byte{5, r[1], 0, 20}, make([]byte, 16)...) }, "answers, but with another secret"},
		{"another identifier", func(r []byte) []byte {
			other := bytes.Clone(r)
			other[1]++
			return response(5, other, "testing")
		}, "no answer from"},
		{"another code", func(r []byte) []byte { return response(3, r, "testing") }, "no answer from"},
		{"torn attributes", func(r []byte) []byte { return response(5, r, "testing", 18, 9, 'o') }, "no answer from"},
		{"short", func(r []byte) []byte { return response(5, r, "testing")[:19] }, "no answer from"},
		{"length beyond the end", func(r []byte) []byte {
			b := response(5, r, "testing")
			b[3]++
			return b
		}, "no answer from"},
		{"length below a header", func(r []byte) []byte {
			b := response(5, r, "testing")
			b[3] = 3
			return b
		}, "no answer from"},
		{"empty", func([]byte) []byte { return nil }, "no answer from"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStub(t, "127.0.0.1", func(r []byte, _ int) [][]byte { return [][]byte{c.answer(r)} })
			err := client(s.server("testing")).Send(t.Context(), who())
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "testing") {
				t.Errorf("the secret is shown: %v", err)
			}
		})
	}
	t.Run("right one behind a wrong one", func(t *testing.T) {
		s := newStub(t, "127.0.0.1", func(r []byte, n int) [][]byte { return [][]byte{response(5, r, "guess"), response(5, r, "testing")} })
		if err := client(s.server("testing")).Send(t.Context(), who()); err != nil || len(s.requests()) != 1 {
			t.Errorf("%v after %d", err, len(s.requests()))
		}
	})
}

// A server that is silent is asked last from then on, and the one that answered first.
func TestFailOver(t *testing.T) {
	dead, alive, spare := newStub(t, "127.0.0.1", never), newStub(t, "127.0.0.1", yes), newStub(t, "127.0.0.1", yes)
	c := client(dead.server("testing"), alive.server("testing"), spare.server("testing"))
	for range 5 {
		if err := c.Send(t.Context(), who()); err != nil {
			t.Fatal(err)
		}
	}
	if d, a, s := dead.count(t, 3), alive.count(t, 5), spare.count(t, 0); d != 3 || a != 5 || s != 0 {
		t.Errorf("asked %d, %d, %d times; want 3, 5, 0", d, a, s)
	}
	if first := alive.requests()[0]; bytes.Equal(first, dead.requests()[0]) || string(first[22:]) != "user2" {
		t.Errorf("the other server got the same request: %q", first[22:])
	}
}

// All that are dead are tried all the same: one of them may be back.
func TestAllDead(t *testing.T) {
	var mu sync.Mutex
	back := false
	first := newStub(t, "127.0.0.1", func(r []byte, n int) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		if !back {
			return nil
		}
		return yes(r, n)
	})
	second := newStub(t, "127.0.0.1", never)
	c := client(first.server("testing"), second.server("testing"))
	err := c.Send(t.Context(), who())
	if err == nil || strings.Count(err.Error(), "no answer from") != 2 || !strings.Contains(err.Error(), second.addr.String()) {
		t.Fatal(err)
	}
	mu.Lock()
	back = true
	mu.Unlock()
	if err := c.Send(t.Context(), who()); err != nil {
		t.Fatal(err)
	}
	if a, b := first.count(t, 4), second.count(t, 3); a != 4 || b != 3 {
		t.Errorf("asked %d and %d times", a, b)
	}
}

func TestOrder(t *testing.T) {
	now := time.Now()
	in := func(d time.Duration) time.Time { return now.Add(d) }
	for _, c := range []struct {
		first  int
		deadTo []time.Time
		want   string
	}{
		{0, []time.Time{{}, {}, {}}, "[0 1 2]"},
		{1, []time.Time{{}, {}, {}}, "[1 2 0]"},
		{0, []time.Time{in(1), {}, {}}, "[1 2 0]"},
		{0, []time.Time{in(-1), {}, {}}, "[0 1 2]"},
		{0, []time.Time{in(3), in(1), in(2)}, "[1 2 0]"},
		{2, []time.Time{in(3), {}, in(2)}, "[1 2 0]"},
		{2, []time.Time{in(0), {}, in(-2)}, "[2 0 1]"},
	} {
		k := NewClient(Settings{Servers: make([]Server, 3)})
		k.first, k.deadTo = c.first, c.deadTo
		if got := fmt.Sprint(k.order(now)); got != c.want {
			t.Errorf("first %d, dead to %v: %s, want %s", c.first, c.deadTo, got, c.want)
		}
	}
}

// A port where nothing listens is known at once.
func TestRefused(t *testing.T) {
	other := newStub(t, "127.0.0.1", yes)
	began := time.Now()
	patient := Settings{Servers: []Server{{Host: "127.0.0.1", Port: closedPort(t), Secret: "testing"}}, Timeout: 20 * time.Second, Transmissions: 1}
	err := NewClient(patient).Send(t.Context(), who())
	if err == nil || !strings.Contains(err.Error(), "connection refused: nothing listens on this UDP port") {
		t.Error(err)
	}
	patient.Servers = append(patient.Servers, other.server("testing"))
	if err := NewClient(patient).Send(t.Context(), who()); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 15*time.Second {
		t.Errorf("took %v", d)
	}
}

// The one that answered last is asked first, also when the other is not held for dead.
func TestLastFirst(t *testing.T) {
	silent, alive := newStub(t, "127.0.0.1", never), newStub(t, "127.0.0.1", yes)
	c := client(silent.server("testing"), alive.server("testing"))
	c.settings.DeadTime = 0
	for range 3 {
		if err := c.Send(t.Context(), who()); err != nil {
			t.Fatal(err)
		}
	}
	if s, a := silent.count(t, 3), alive.count(t, 3); s != 3 || a != 3 {
		t.Errorf("asked %d and %d times, want 3 and 3", s, a)
	}
}

// The time that there is is shared, and the end of the program is no verdict on a server.
func TestDeadline(t *testing.T) {
	silent, alive := newStub(t, "127.0.0.1", never), newStub(t, "127.0.0.1", yes)
	patient := Settings{Servers: []Server{silent.server("testing"), alive.server("testing")}, Timeout: time.Hour, Transmissions: 3, DeadTime: time.Hour}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := NewClient(patient).Send(ctx, who()); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	patient.Servers = patient.Servers[:1]
	if err := NewClient(patient).Send(short, who()); err == nil || !strings.Contains(err.Error(), "no answer from RADIUS server") {
		t.Errorf("%v, want a hint", err)
	}

	c := NewClient(patient)
	ctx, stop := context.WithCancel(t.Context())
	before := len(silent.requests())
	done := make(chan error)
	go func() { done <- c.Send(ctx, who()) }()
	if silent.count(t, before+1) == before {
		t.Error("nothing is sent")
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) || !c.deadTo[0].IsZero() {
		t.Errorf("%v, dead to %v", err, c.deadTo[0])
	}
}

// Requests leave from bindaddr; names have addresses of both families.
func TestAddresses(t *testing.T) {
	s := newStub(t, "127.0.0.1", yes)
	c := client(s.server("testing"))
	c.settings.Bind = netip.MustParseAddr("127.0.0.77")
	if err := c.Send(t.Context(), who()); err != nil || s.clients()[0].Addr() != c.settings.Bind {
		t.Errorf("%v from %v", err, s.clients())
	}
	named := s.server("testing")
	named.Host = "localhost"
	c = client(named)
	if err := c.Send(t.Context(), who()); err != nil {
		t.Error(err)
	}
	c.settings.Bind = netip.MustParseAddr("192.0.2.7")
	if err := c.Send(t.Context(), who()); err == nil || !strings.Contains(err.Error(), "bindaddr 192.0.2.7 is no address of this host") {
		t.Error(err)
	}
	six := newStub(t, "::1", yes)
	if err := client(six.server("testing")).Send(t.Context(), who()); err != nil {
		t.Error(err)
	}
	unknown := s.server("testing")
	unknown.Host = "no-such-host.invalid"
	if err := client(unknown).Send(t.Context(), who()); err == nil || !strings.Contains(err.Error(), "no-such-host.invalid") {
		t.Error(err)
	}
}

// What counts as confirmed is what RFC 2866 says of the same bytes, whatever they are.
func FuzzJudge(f *testing.F) {
	request, err := packet("testing", List{{UserName, []byte("u")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(response(5, request, "testing"))
	f.Add(response(5, request, "testing", 18, 4, 'o', 'k'))
	f.Add(response(5, request, "guess", 18, 200))
	f.Fuzz(func(t *testing.T, b []byte) {
		v := judge(b, request, "testing")
		if v == stranger {
			return
		}
		length := int(binary.BigEndian.Uint16(b[2:]))
		genuine := bytes.Equal(b[:length], response(5, request, "testing", b[20:length]...))
		if genuine != (v == confirmed) {
			t.Errorf("%x is judged %d", b, v)
		}
	})
}
