package program

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"example.org/mediaproxy/cmd/mediaproxy/bench"
)

// light is a load that a busy machine carries with the race detector.
var light = []string{"mediaproxy", "bench", "dispatcher", "--relays", "20", "--calls", "400", "--rate", "200", "--duration", "3s",
	"--connections", "8", "--expired", "20", "--patience", "5s", "--json"}

// benchIn runs a measurement whose folders are made in the folder returned.
func benchIn(t *testing.T, args ...string) (*process, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "mpb") // short, because paths of sockets have to be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return start(t, []string{"TMPDIR=" + dir}, args...), dir
}

// childrenOf finds the processes that name the folder on their command line.
func childrenOf(t *testing.T, dir string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(line), dir+"/") {
			continue // it may have ended meanwhile
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if pids := childrenOf(t, dir); len(pids) > 0 {
		t.Errorf("processes %v are left behind", pids)
	}
}

// whole fails unless the figures of a measurement without errors add up.
func whole(t *testing.T, p *process) bench.Result {
	t.Helper()
	if code := p.exit(t); code != 0 {
		t.Fatalf("exit code %d, want 0", code)
	}
	var r bench.Result
	if err := json.Unmarshal([]byte(p.stdout()), &r); err != nil {
		t.Fatalf("document %q: %v", p.stdout(), err)
	}
	if r.Offered != r.Answered+r.Errors || r.Errors != 0 || len(r.Faults) > 0 || r.Unacknowledged != 0 {
		t.Errorf("%d offered, %d answered, %d errors (%s), faults %v, %d not acknowledged", r.Offered, r.Answered, r.Errors, r.FirstError, r.Faults, r.Unacknowledged)
	}
	if r.CallsGiven.Least == 0 {
		t.Errorf("a relay got no call: %+v", r.CallsGiven)
	}
	count := map[string]uint64{}
	for _, l := range r.Latency {
		count[l.Of] = l.Count
		if l.P50 > l.P99 || l.P99 > l.P999 || l.P999 > l.Max {
			t.Errorf("latencies of %s do not rise: %+v", l.Of, l)
		}
	}
	if count["all"] != r.Answered || count["offer"]+count["answer"]+count["remove"] != r.Answered {
		t.Errorf("latencies of %v, want %d in all", count, r.Answered)
	}
	// 200 updates a second for 3 s, without the answers that were due after the end.
	if updates := count["offer"] + count["answer"]; updates < 550 || updates > 600 || count["remove"] < 250 || count["remove"] > 300 {
		t.Errorf("%v, want some 600 updates and 300 removes", count)
	}
	if r.Dispatcher.Idle == 0 || r.Dispatcher.Most < r.Dispatcher.Full || r.Dispatcher.Cores <= 0 || r.Generator.Cores <= 0 {
		t.Errorf("processes: %+v, %+v", r.Dispatcher, r.Generator)
	}
	if r.LinkBytes.ToRelays == 0 || r.LinkBytes.ToDispatcher == 0 || r.ReconnectSeconds == 0 {
		t.Errorf("links: %+v, %v s", r.LinkBytes, r.ReconnectSeconds)
	}
	return r
}

// The measurement of a dispatcher of its own, with accounting: the figures add up, all
// calls that ended are stored, and nothing is left.
func TestBenchDispatcher(t *testing.T) {
	p, dir := benchIn(t, append(light, "--accounting", "webhook")...)
	r := whole(t, p)
	var acknowledged uint64
	for _, l := range r.Latency {
		if l.Of == "acknowledged" {
			acknowledged = l.Count
		}
	}
	if acknowledged < 250 || r.Stored != acknowledged {
		t.Errorf("%d calls acknowledged, %d stored; want the same, and some 300", acknowledged, r.Stored)
	}
	nothingLeft(t, dir)
}

// An existing dispatcher is measured where it is, and left as it was.
func TestBenchExistingDispatcher(t *testing.T) {
	s := newSite(t)
	s.certificates(t)
	s.write(t, quietDispatcher, "")
	d := start(t, nil, s.args("mediaproxy", "dispatcher")...)
	d.says(t, "dispatcher ready")
	found := regexp.MustCompile(`relays=(\S+)`).FindStringSubmatch(d.stderr())
	if found == nil {
		t.Fatalf("no address in %q", d.stderr())
	}
	p, dir := benchIn(t, append(light, "--socket", filepath.Join(s.run, "dispatcher.sock"), "--connect", found[1], "--certs", s.certs)...)
	whole(t, p)
	nothingLeft(t, dir)
	select {
	case <-d.done:
		t.Error("the dispatcher has ended")
	default:
	}
}

// Ctrl-C, and a dispatcher that dies, end it with nothing left behind.
func TestBenchEndsEarly(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(t *testing.T, p *process, dir string)
		want string
	}{
		"interrupted": {func(t *testing.T, p *process, _ string) {
			if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}, "interrupted"},
		"dispatcher killed": {func(t *testing.T, p *process, dir string) {
			pids := childrenOf(t, dir)
			if len(pids) != 1 {
				t.Fatalf("processes %v, want one dispatcher", pids)
			}
			if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}, "the dispatcher ended by itself (signal: killed)"},
	} {
		t.Run(name, func(t *testing.T) {
			p, dir := benchIn(t, "mediaproxy", "bench", "dispatcher", "--relays", "3", "--calls", "100", "--rate", "100", "--duration", "10m")
			p.says(t, "sending 100 updates/s")
			tt.end(t, p, dir)
			if code := p.exit(t); code != 1 || !strings.Contains(p.stderr(), tt.want) {
				t.Errorf("exit code %d, want 1 and %q in %q", code, tt.want, p.stderr())
			}
			nothingLeft(t, dir)
		})
	}
}
