package lab

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is the binary under test, built by TestMain as the Makefile builds it, or
// LAB_BIN from the environment.
var program = os.Getenv("LAB_BIN")

// standin makes run.sh use a relay side of its own; the name of a fault follows.
const standin = `LAB_RELAY_CMD=python3 "$LAB_HERE/standin.py" --socket "$LAB_MP_SOCKET_PATH"` +
	` --address "$LAB_RELAY_IP" --ports "$LAB_RELAY_PORTS" --fault `

func TestMain(m *testing.M) {
	if program != "" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "mplab-bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := 1
	program = filepath.Join(dir, "mediaproxy")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "example.org/mediaproxy/cmd/mediaproxy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// needs skips where the lab cannot run. The gate does not allow these skips.
func needs(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: packet capture, raw sockets, network namespaces")
	}
	for _, name := range []string{"kamailio", "sipp", "python3", "ip"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("needs %s: test/setup/install.sh installs it", name)
		}
	}
}

// verdict is one line of run.sh.
type verdict struct {
	word     string // PASS FAIL SKIP AGAIN TOTAL
	scenario string
	line     string
}

var verdictLine = regexp.MustCompile(`^(PASS|FAIL|SKIP|AGAIN|TOTAL)(?:\([^)]*\))? ([\w=-]+)`)

// runLab runs run.sh and returns its lines, everything it printed, and its exit code.
func runLab(ctx context.Context, t *testing.T, env []string, args ...string) ([]verdict, string, int) {
	t.Helper()
	return runLabBy(ctx, t, nil, env, args...)
}

// runLabBy has a program with its arguments start run.sh in its own place.
func runLabBy(ctx context.Context, t *testing.T, wrap, env []string, args ...string) ([]verdict, string, int) {
	t.Helper()
	args = slices.Concat(wrap, []string{"./run.sh"}, args)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(append(os.Environ(), "LAB_BIN="+program), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		t.Fatalf("start run.sh: %v", err)
	}
	var list []verdict
	in := bufio.NewScanner(strings.NewReader(string(out)))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		if m := verdictLine.FindStringSubmatch(in.Text()); m != nil {
			list = append(list, verdict{m[1], m[2], in.Text()})
		}
	}
	if left := namespaces(t, cmd.Process.Pid); len(left) > 0 {
		t.Errorf("run.sh left namespaces behind: %v", left)
	}
	return list, string(out), cmd.ProcessState.ExitCode()
}

// namespaces lists those that a run.sh with this process number has made.
func namespaces(t *testing.T, pid int) []string {
	t.Helper()
	out, err := exec.Command("ip", "netns", "list").CombinedOutput()
	if err != nil {
		t.Fatalf("list namespaces: %v: %s", err, out)
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, fmt.Sprintf("mplab-%d-", pid)) {
			list = append(list, strings.TrimSpace(line))
		}
	}
	return list
}

// soak tells whether there is time for the ways that the gate leaves out.
func soak() bool { return os.Getenv("MEDIAPROXY_TEST") == "soak" }

// TestCalls makes every call of the lab in every network, as many runs at once as there
// are processors: each has namespaces of its own. In those the kernel moves the media, on
// loopback user space does; the levels between them have their calls in the soak.
func TestCalls(t *testing.T) {
	needs(t)
	type run struct {
		name string
		args []string
		skip []string // exactly these have to be skipped
		soak bool
	}
	noDialog := []string{"end-dialog", "media-timeout"}
	zero := []string{"hold-zero"}
	for _, r := range []run{
		{"loopback-engage", []string{"-f", "off", "-m", "engage"}, nil, false},
		{"netns4-engage", []string{"-n", "netns", "-m", "engage"}, nil, false},
		{"netns6-engage", []string{"-n", "netns", "-6", "-m", "engage"}, zero, false},
		{"loopback-use", []string{"-f", "off", "-m", "use"}, noDialog, false},
		{"netns4-use", []string{"-n", "netns", "-m", "use"}, noDialog, false},
		{"netns6-use", []string{"-n", "netns", "-6", "-m", "use"}, slices.Concat(noDialog, zero), false},
		{"loopback6-engage", []string{"-f", "off", "-6", "-m", "engage"}, zero, true},
		{"loopback6-use", []string{"-f", "off", "-6", "-m", "use"}, slices.Concat(noDialog, zero), true},
		{"clsact4-engage", []string{"-n", "netns", "-f", "clsact", "-m", "engage"}, nil, true},
		{"clsact6-use", []string{"-n", "netns", "-f", "clsact", "-6", "-m", "use"}, slices.Concat(noDialog, zero), true},
		{"sk_lookup4-use", []string{"-n", "netns", "-f", "sk_lookup", "-m", "use"}, noDialog, true},
		{"sk_lookup6-engage", []string{"-n", "netns", "-f", "sk_lookup", "-6", "-m", "engage"}, zero, true},
		{"off4-engage", []string{"-n", "netns", "-f", "off", "-m", "engage"}, nil, true},
		{"off6-use", []string{"-n", "netns", "-f", "off", "-6", "-m", "use"}, slices.Concat(noDialog, zero), true},
	} {
		if r.soak && !soak() {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			list, out, code := runLab(t.Context(), t, nil, append(r.args, "all")...)
			if code != 0 {
				t.Errorf("run.sh ended with %d:\n%s", code, out)
			}
			total, skipped := 0, 0
			for _, v := range list {
				if v.word == "AGAIN" {
					t.Log(v.line) // the machine stood still; the line that counts follows
					continue
				}
				if v.word == "TOTAL" {
					if !strings.HasSuffix(v.line, " scenarios=20 failed=0") {
						t.Errorf("last line: %s", v.line)
					}
					continue
				}
				total++
				t.Run(v.scenario, func(t *testing.T) { count(t, v, r.skip) })
				if v.word == "SKIP" {
					skipped++
				}
			}
			if total != 20 || skipped != len(r.skip) {
				t.Errorf("%d scenarios, %d of them skipped; want 20 and %d:\n%s", total, skipped, len(r.skip), out)
			}
		})
	}
}

// TestManyLaps makes every call of mode engage ten times in a row.
func TestManyLaps(t *testing.T) {
	if !soak() {
		return // the calls are those of TestCalls
	}
	needs(t)
	for lap := range 10 {
		t.Run(fmt.Sprint("lap ", lap+1), func(t *testing.T) {
			t.Parallel()
			list, out, code := runLab(t.Context(), t, nil, "-n", "netns", "-m", "engage", "all")
			if len(list) == 0 || code != 0 || !strings.HasSuffix(list[len(list)-1].line, " scenarios=20 failed=0") || strings.Contains(out, "SKIP") {
				t.Errorf("run.sh ended with %d:\n%s", code, out)
			}
		})
	}
}

// count makes a test out of a line of the lab.
func count(t *testing.T, v verdict, skip []string) {
	switch v.word {
	case "PASS":
	case "SKIP":
		if !slices.Contains(skip, v.scenario) {
			t.Errorf("must not be skipped in this run: %s", v.line)
			return
		}
		t.Skip(v.line)
	default:
		t.Error(v.line)
	}
}

// TestJudgeSeesFaults lets a relay side misbehave in every way the judge has to notice,
// so that PASS means something.
func TestJudgeSeesFaults(t *testing.T) {
	needs(t)
	for _, c := range []struct{ fault, net, want string }{
		{"none", "4", "PASS"},
		{"none", "6", "PASS"},
		{"mute", "4", "packets in phase 1, wanted"},
		{"error", "4", "went past the relay"},
		{"silent", "4", "module-timeout"},
		{"alter", "6", "bytes that the other party had not sent"},
		{"other-port", "6", "from an address no SDP told"},
	} {
		t.Run(c.fault+c.net, func(t *testing.T) {
			t.Parallel()
			args := []string{"-n", "netns", "audio"}
			if c.net == "6" {
				args = append([]string{"-6"}, args...)
			}
			list, out, code := runLab(t.Context(), t, []string{standin + c.fault, "LAB_CALL_LIMIT=8"}, args...)
			list = slices.DeleteFunc(list, func(v verdict) bool { return v.word == "AGAIN" })
			if len(list) != 1 {
				t.Fatalf("%d lines of verdict, want 1:\n%s", len(list), out)
			}
			word, wantCode := "FAIL", 1
			if c.fault == "none" {
				word, wantCode = "PASS", 0
			}
			if list[0].word != word || code != wantCode || !strings.Contains(out, c.want) {
				t.Errorf("got %q and exit code %d, want %s with %q and %d:\n%s",
					list[0].line, code, word, c.want, wantCode, out)
			}
		})
	}
}

// TestJudgeSeesWhoMoves lets the relay lack a right, so that the kernel cannot move what it
// has to move in this network.
func TestJudgeSeesWhoMoves(t *testing.T) {
	needs(t)
	t.Parallel()
	list, out, code := runLabBy(t.Context(), t, []string{"setpriv", "--inh-caps=-bpf", "--bounding-set=-bpf"}, nil, "-n", "netns", "audio")
	list = slices.DeleteFunc(list, func(v verdict) bool { return v.word == "AGAIN" })
	if len(list) != 1 || code != 1 || !strings.HasPrefix(list[0].line, "FAIL(not-moved-by-tc not-pinned not-in-the-kernel)") {
		t.Errorf("exit code %d, want 1 because user space moved the media:\n%s", code, out)
	}
}

// TestStopCleansUp stops the lab in the middle of a call.
func TestStopCleansUp(t *testing.T) {
	needs(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, "./run.sh", "-n", "netns", "audio")
	tmp := t.TempDir()
	cmd.Env = append(os.Environ(), standin+"none", "TMPDIR="+tmp)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	running := func() bool {
		out, err := exec.Command("ip", "netns", "pids", fmt.Sprintf("mplab-%d-caller", cmd.Process.Pid)).Output()
		if err != nil {
			return false // the namespace is not there yet
		}
		return slices.ContainsFunc(strings.Fields(string(out)), func(pid string) bool {
			name, err := os.ReadFile("/proc/" + pid + "/comm")
			return err == nil && string(name) == "sipp\n"
		})
	}
	for deadline := time.Now().Add(30 * time.Second); !running(); {
		if time.Now().After(deadline) {
			t.Fatal("the call did not start within 30 s")
		}
		time.Sleep(20 * time.Millisecond) // polling, with the deadline above
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 143 {
		t.Errorf("run.sh ended with %d, want 143", code)
	}
	if left := namespaces(t, cmd.Process.Pid); len(left) > 0 {
		t.Errorf("namespaces left: %v", left)
	}
	if left, err := filepath.Glob(filepath.Join(tmp, "mplab.*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}
