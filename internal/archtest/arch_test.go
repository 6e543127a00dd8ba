package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "example.org/mediaproxy"

// top is the top of the module: where its go.mod is.
func top(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// sources reads the import clauses of every Go file, for all systems at once.
func sources(t *testing.T, root string) []file {
	t.Helper()
	var files []file
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch d.Name() {
			case ".git", "build", "testdata", "tools":
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		f := file{name: filepath.ToSlash(name)}
		for _, spec := range parsed.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, p)
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestArchitecture(t *testing.T) {
	root := top(t)
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if first, _, _ := strings.Cut(string(text), "\n"); first != "module "+module {
		t.Fatalf("go.mod says %q, this test checks %q", first, module)
	}
	files := sources(t, root)
	if len(files) < 20 {
		t.Fatalf("only %d Go files found below %s; the test looks at the wrong place", len(files), root)
	}
	for _, line := range check(module, files) {
		t.Error(line)
	}
}

// Each planted violation must be found, and its legal neighbour must not be.
func TestCheckFindsViolations(t *testing.T) {
	in := func(name string, imports ...string) file { return file{name, imports} }
	m := func(room string) string { return module + "/internal/" + room }
	for _, c := range []struct {
		name string
		file file
		want string // part of the violation; empty: legal
	}{
		{"leaf alone", in("internal/wire/rtp/rtp.go", "fmt", "net/netip"), ""},
		{"leaf imports leaf", in("internal/report/session.go", m("wire/control")), "a leaf imports no other room"},
		{"leaf imports room", in("internal/wire/control/parse.go", m("session")), "a leaf imports no other room"},
		{"the one leaf that may", in("internal/wire/relaylink/frame.go", m("wire/control")), ""},
		{"but not all", in("internal/wire/relaylink/frame.go", m("report")), "a leaf imports no other room"},
		{"room imports leaf", in("internal/session/table.go", m("report"), m("wire/control")), ""},
		{"arrow down", in("internal/session/table.go", m("media")), ""},
		{"no arrow: two floors down", in("internal/session/table.go", m("forward")), "no arrow leads from session to forward"},
		{"up", in("internal/media/stream.go", m("session")), "no arrow leads from media to session"},
		{"along", in("internal/dispatcher/route.go", m("relay")), "no arrow leads from dispatcher to relay"},
		{"along, other way", in("internal/relay/link.go", m("dispatcher")), "no arrow leads"},
		{"file for another system", in("internal/forward/loop_freebsd.go", m("media")), "no arrow leads from forward to media"},
		{"cmd may all", in("cmd/mediaproxy/up.go", m("relay"), m("dispatcher")), ""},
		{"cmd sub-package may all", in("cmd/mediaproxy/ctl/top.go", m("wire/manage")), ""},
		{"nothing imports cmd", in("internal/relay/a.go", module+"/cmd/mediaproxy/ctl"), "nothing imports cmd"},
		{"test code in the program", in("cmd/mediaproxy/main.go", module+"/test/lab"), "no test code"},
		{"root: leaves only", in("client.go", m("wire/control"), m("sdp")), ""},
		{"root imports a room", in("client.go", m("dispatcher")), "no arrow leads from root to dispatcher"},
		{"edge on root", in("internal/edge/proxy.go", module), ""},
		{"unknown room", in("internal/util/strings.go"), "is not drawn"},
		{"unknown wire format", in("internal/wire/ng/ng.go"), "is not drawn"},
		{"library in its room", in("internal/forward/load.go", "github.com/cilium/ebpf"), ""},
		{"library elsewhere", in("internal/relay/load.go", "github.com/cilium/ebpf"), "belongs to forward"},
		{"library with version", in("cmd/mediaproxy/systemd.go", "github.com/coreos/go-systemd/v22/daemon"), ""},
		{"library below cmd only", in("internal/dispatcher/log.go", "github.com/coreos/go-systemd/v22/daemon"), "belongs to cmd"},
		{"terminal view in ctl", in("cmd/mediaproxy/ctl/top.go", "charm.land/bubbletea/v2"), ""},
		{"terminal view elsewhere", in("cmd/mediaproxy/main.go", "charm.land/bubbletea/v2"), "belongs to cmd/ctl"},
		{"cobra", in("internal/dispatcher/a.go", "github.com/spf13/cobra"), "belongs to cmd"},
		{"ebpf", in("internal/media/a.go", "github.com/cilium/ebpf/link"), "belongs to forward"},
		{"unowned library", in("internal/media/a.go", "github.com/somebody/thing"), "no room owns"},
		{"similar prefix is another library", in("internal/forward/a.go", "github.com/cilium/ebpf0"), "no room owns"},
		{"test library in a test", in("internal/media/a_test.go", "go.uber.org/goleak"), ""},
		{"test library in the program", in("internal/media/a.go", "go.uber.org/goleak"), "tests only"},
		{"socket in a wire format", in("internal/wire/manage/a.go", "net"), "does without it"},
		{"SQL outside accounting", in("internal/dispatcher/a.go", "database/sql"), "does without it"},
		{"room inside of another", in("internal/accounting/radius/exchange.go", "layeh.com/radius"), ""},
		{"the outer room may import it", in("internal/accounting/radius.go", m("accounting/radius")), ""},
		{"but not its library", in("internal/accounting/radius.go", "layeh.com/radius"), "belongs to accounting/radius"},
		{"nor the inner room the outer one", in("internal/accounting/radius/client.go", m("accounting")), "no arrow leads from accounting/radius to accounting"},
		{"nor others", in("internal/dispatcher/a.go", m("accounting/radius")), "no arrow leads"},
		{"SQL in accounting", in("internal/accounting/a.go", "database/sql"), ""},
		{"a test may start its peers", in("internal/relay/link_test.go", m("dispatcher")), ""},
		{"end-to-end tests may all", in("test/chain/chain_test.go", m("relay"), "github.com/google/go-cmp/cmp"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(check(module, []file{c.file}), "\n")
			if c.want == "" && got != "" {
				t.Errorf("legal, but found: %s", got)
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("got %q, want something with %q", got, c.want)
			}
		})
	}
}

// Arrows lead down; otherwise a cycle would be possible, and the compiler would find
// it only when somebody has already built on it.
func TestArrowsLeadDown(t *testing.T) {
	for from, list := range arrows {
		if floors[from] == 0 {
			t.Errorf("room %s stands on no floor", from)
		}
		for _, to := range list {
			if floors[to] >= floors[from] {
				t.Errorf("the arrow %s -> %s does not lead down", from, to)
			}
		}
	}
}
