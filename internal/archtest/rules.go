// Package archtest holds the program to its architecture: which room may import
// which, and which room owns which outside library. It is imported by nothing; its
// tests read the import clauses of every file of the module, whatever system the
// file is for, and compare them with the rules below.
//
// A room imports leaves, and the rooms an arrow leads to. Arrows lead downwards only:
//
//	cmd                                  everything
//	edge       console                   edge -> the root package, journal
//	dispatcher relay accounting          dispatcher -> state, hangup;  accounting -> state, accounting/radius
//	                                     relay -> session, rtpproxy, hangup, journal
//	session    rtpproxy                  -> media
//	media                                -> forward, record
//	forward    record journal state hangup accounting/radius
//	leaves: wire/*, report, config, pki, sdp
package archtest

// arrows lists, for every room, the rooms it may import besides the leaves.
// A room that is not in this table does not exist: whoever adds one draws it here.
var arrows = map[string][]string{
	"root":       {},
	"edge":       {"root", "journal"},
	"console":    {},
	"dispatcher": {"state", "hangup"},
	"relay":      {"session", "rtpproxy", "hangup", "journal"},
	"accounting": {"state", "accounting/radius"},
	"session":    {"media"},
	"rtpproxy":   {"media"},
	"media":      {"forward", "record"},
	"forward":    {},
	"record":     {},
	"journal":    {},
	"state":      {},
	"hangup":     {},

	"accounting/radius": {},
}

// floors numbers the rooms from below; an arrow that leads up, or along, is a mistake
// in this file. cmd and the tests under test/ stand above all of them.
var floors = map[string]int{
	"forward": 1, "record": 1, "journal": 1, "state": 1, "hangup": 1, "root": 1, "accounting/radius": 1,
	"media": 2, "session": 3, "rtpproxy": 3,
	"dispatcher": 4, "relay": 4, "accounting": 4,
	"edge": 5, "console": 5,
}

// leaves import no other room; anybody may import them. The exceptions are leaves that
// say the same words in another frame.
var leaves = map[string][]string{
	"wire/control":     {},
	"wire/relaylink":   {"wire/control"}, // the link carries the module's headers as they came
	"wire/manage":      {},
	"wire/rtpproxyctl": {},
	"wire/mi":          {},
	"wire/rtp":         {},
	"wire/snapshot":    {},
	"report":           {},
	"config":           {},
	"pki":              {},
	"sdp":              {},
}

// owners says which rooms may import an outside library. A library that is not listed
// may be imported by nobody. The programs' sub-packages under cmd count as cmd.
var owners = map[string][]string{
	"github.com/spf13/cobra":              {"cmd"},
	"github.com/spf13/pflag":              {"cmd"},
	"github.com/coreos/go-systemd":        {"cmd"},
	"github.com/cilium/ebpf":              {"forward"},
	"github.com/vishvananda/netlink":      {"forward"},
	"github.com/pion":                     {"media"},
	"github.com/emiago/sipgo":             {"edge", "cmd/demo"},
	"github.com/nats-io":                  {"state"},
	"github.com/minio/highwayhash":        {"state"}, // the sums in blocks of NATS
	"modernc.org/sqlite":                  {"accounting"},
	"github.com/go-sql-driver/mysql":      {"accounting"},
	"github.com/jackc/pgx":                {"accounting"},
	"github.com/microsoft/go-mssqldb":     {"accounting"},
	"github.com/huandu/go-sqlbuilder":     {"accounting"},
	"github.com/pressly/goose":            {"accounting"},
	"layeh.com/radius":                    {"accounting/radius"},
	"github.com/danielgtaylor/huma":       {"console"},
	"github.com/coreos/go-oidc":           {"console"},
	"github.com/prometheus/client_golang": {"console"},
	"charm.land/bubbletea":                {"cmd/ctl"},
	"charm.land/lipgloss":                 {"cmd/ctl"},
	// The system calls that package syscall does not have; no policy in it.
	"golang.org/x/sys": {"forward", "media", "relay", "dispatcher", "cmd"},
}

// testOnly are libraries for tests: any _test.go file, and nothing else.
var testOnly = []string{
	"github.com/google/go-cmp",
	"pgregory.net/rapid",
	"go.uber.org/goleak",
	"github.com/vishvananda/netns",
	"github.com/chromedp/chromedp",
}

// forbidden are packages of the standard library that a group of rooms must do
// without: wire formats know no sockets and no clock.
var forbidden = map[string][]string{
	"wire/": {"net", "os", "os/exec", "net/http", "crypto/tls", "database/sql", "log", "log/slog"},
	"":      {"database/sql"}, // see owners: only accounting speaks SQL
}

// except lifts a line of forbidden for one room.
var except = map[string]string{"database/sql": "accounting"}
