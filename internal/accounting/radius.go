package accounting

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.org/mediaproxy/internal/accounting/radius"
	"example.org/mediaproxy/internal/config"
	"example.org/mediaproxy/internal/report"
)

// radiusServers tell RADIUS servers of each finished call, with one Accounting-Request as
// the original sends it. A server that gets a record twice, because its answer was lost, knows it by the
// Acct-Session-Id, which is the Call-ID.
type radiusServers struct {
	numbers numbers
	client  *radius.Client
}

// numbers are what the dictionaries say of attributes that no RFC numbers.
type numbers struct {
	update                        uint32 // Acct-Status-Type
	fromTag, toTag                byte
	codecs, info, agents, applied byte
	delay                         byte // 0: not sent
	delayIsText                   bool
}

func newRadius(c *config.Config) (*radiusServers, error) {
	settings, numbers, problems := readRadius(c)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	return &radiusServers{numbers: numbers, client: radius.NewClient(settings)}, nil
}

// Check returns what is wrong with files that back-ends read, those of the back-ends that
// are named. Paths in c have to be found already.
func Check(c *config.Config) config.Problems {
	if !slices.Contains(c.Dispatcher.Backends(), "radius") {
		return nil
	}
	_, _, problems := readRadius(c)
	return problems
}

func readRadius(c *config.Config) (radius.Settings, numbers, config.Problems) {
	settings, problems := radius.Read(c.Radius.ConfigFile, c.Radius.AdditionalDictionary)
	_, named := c.Where("Radius", "additional_dictionary")
	for i := range problems {
		p := &problems[i]
		switch {
		case p.Line == 0 && p.File == c.Radius.ConfigFile: // the file as a whole: say what names it
			p.Section, p.Key = "Radius", "config_file"
		case p.Line == 0 && p.File == c.Radius.AdditionalDictionary:
			p.Section, p.Key = "Radius", "additional_dictionary"
		}
		if named && p.Severity == config.Notice { // somebody wants it to be there
			p.Severity = config.Warning
		}
	}
	if settings.Dictionary == nil {
		return settings, numbers{}, problems
	}
	n, more := findNumbers(settings.Dictionary)
	return settings, n, append(problems, more...)
}

// postDialDelay is the attribute for the time that the original puts into Acct-Delay-Time,
// where a server subtracts it from the time of the record.
const postDialDelay = "Sip-Post-Dial-Delay"

// findNumbers looks our attributes up. Tags have no number of their own: SIP proxies do not
// agree on one.
func findNumbers(d *radius.Dictionary) (numbers, config.Problems) {
	n := numbers{update: 3}
	if v, ok := d.StatusType("Update"); ok {
		n.update = v
	}
	var problems config.Problems
	for _, a := range []struct {
		name    string
		number  *byte
		builtIn byte
	}{
		{"Sip-From-Tag", &n.fromTag, 0}, {"Sip-To-Tag", &n.toTag, 0},
		{"Media-Codecs", &n.codecs, 233}, {"Media-Info", &n.info, 234},
		{"Sip-User-Agents", &n.agents, 235}, {"Sip-Applications", &n.applied, 236},
		{postDialDelay, &n.delay, 0},
	} {
		def, found := d.Attribute(a.name)
		why := ""
		switch {
		case !found && (a.builtIn != 0 || a.name == postDialDelay):
			*a.number = a.builtIn
		case !found && d.File == "":
			// that there is no dictionary is said already
		case !found:
			def.File = d.File
			why = fmt.Sprintf("there is no attribute %s: want a line `ATTRIBUTE %s NUMBER string` with the number that your RADIUS server has for it: 105 (From) and 104 (To) in dictionaries of Kamailio, 206 and 207 in those of OpenSIPS", a.name, a.name)
		case def.Number == 0:
			why = fmt.Sprintf("%s cannot be sent, because %s: want a number from 1 to 255 outside of all blocks", a.name, def.Why)
		case a.name == postDialDelay && def.Type == "integer":
			*a.number = def.Number
		case def.Type != "string" && def.Type != "text" && def.Type != "octets":
			why = fmt.Sprintf("%s is of type %s: want string", a.name, def.Type)
		default:
			*a.number = def.Number
			n.delayIsText = n.delayIsText || a.name == postDialDelay
		}
		if why != "" {
			problems = append(problems, config.Problem{Severity: config.Error, File: def.File, Line: def.Line, Text: why})
		}
	}
	return n, problems
}

// Store sends it. Each time is a request of its own, with another identifier and another
// Acct-Delay-Time.
func (r *radiusServers) Store(ctx context.Context, record Record) error {
	return r.client.Send(ctx, func(now time.Time) radius.List { return r.numbers.attributes(&record.Session, now) })
}

// Close has nothing to close: each exchange has a socket of its own.
func (r *radiusServers) Close() error { return nil }

// attributes of a finished call, in the order of the original, with what was added behind
// what it belongs to.
func (n *numbers) attributes(s *report.Session, now time.Time) (list radius.List) {
	caller, callee := octets(s)
	ended := end(s, now)
	list.Number(radius.AcctStatusType, int64(n.update))
	list.Text(radius.UserName, username(s))
	list.Text(radius.AcctSessionID, sessionID(s.CallID))
	list.Number(radius.AcctSessionTime, s.Duration)
	list.Octets(radius.AcctInputOctets, radius.AcctInputGigawords, caller)
	list.Octets(radius.AcctOutputOctets, radius.AcctOutputGigawords, callee)
	list.Text(n.fromTag, s.FromTag)
	if s.ToTag != nil {
		list.Text(n.toTag, *s.ToTag)
	}
	n.server(&list, s)
	list.Text(n.agents, s.CallerUA+"+"+s.CalleeUA)
	list.Text(n.applied, applications(s))
	list.Text(n.codecs, codecs(s))
	list.Text(n.info, mediaInfo(s))
	n.postDialDelay(&list, s)
	list.Number(radius.AcctDelayTime, int64(now.Sub(ended).Seconds()))
	list.Number(radius.EventTimestamp, ended.Unix())
	return list
}

func octets(s *report.Session) (caller, callee uint64) {
	for _, stream := range s.Streams {
		caller += stream.CallerBytes
		callee += stream.CalleeBytes
	}
	return caller, callee
}

// end is when the call ended, by the clock of its relay, which may be ahead of ours.
func end(s *report.Session, now time.Time) time.Time {
	if s.StartTime == nil {
		return now
	}
	whole, part := math.Modf(*s.StartTime)
	ended := time.Unix(int64(whole)+s.Duration, int64(part*1e9))
	if ended.After(now) {
		return now
	}
	return ended
}

func username(s *report.Session) string {
	if s.Username != nil && *s.Username != "" {
		return *s.Username
	}
	return "mediaproxy@default"
}

// sessionID is the Call-ID. One that is too long ends in a digest of all of it, so that two
// with the same beginning stay two.
func sessionID(callID string) string {
	if whole := radius.Cut(callID, len(callID)*3); len(whole) <= radius.MaxValue {
		return whole
	}
	sum := sha256.Sum256([]byte(callID))
	digest := "~" + hex.EncodeToString(sum[:4])
	return radius.Cut(callID, radius.MaxValue-len(digest)) + digest
}

// server adds the relay's address, or its name: a request has to have one of them (RFC 2866
// section 4.1).
func (n *numbers) server(list *radius.List, s *report.Session) {
	if len(s.Streams) > 0 {
		if a, err := netip.ParseAddrPort(s.Streams[0].CallerLocal); err == nil {
			list.Address(radius.NASIPAddress, radius.NASIPv6Address, a.Addr())
			return
		}
	}
	name := s.Relay
	if name == "" {
		name = "mediaproxy"
	}
	list.Text(radius.NASIdentifier, name)
}

// applications are the kinds of media that were used.
func applications(s *report.Session) string {
	var kinds []string
	for _, stream := range s.Streams {
		if stream.StartTime != stream.EndTime {
			kinds = append(kinds, stream.MediaType)
		}
	}
	slices.Sort(kinds)
	return strings.Join(slices.Compact(kinds), ", ")
}

func codecs(s *report.Session) string {
	var names []string
	for _, stream := range s.Streams {
		names = append(names, stream.CallerCodec)
	}
	return strings.Join(names, ", ")
}

func mediaInfo(s *report.Session) string {
	switch {
	case s.AllStreamsICE():
		return "ICE session"
	case s.TimedOut():
		return "timeout"
	}
	return ""
}

// postDialDelay adds the first that a stream has, if the dictionary has a place for it:
// whole seconds, or with milliseconds as text.
func (n *numbers) postDialDelay(list *radius.List, s *report.Session) {
	i := slices.IndexFunc(s.Streams, func(stream report.Stream) bool { return stream.PostDialDelay != nil })
	if i < 0 || n.delay == 0 {
		return
	}
	delay := *s.Streams[i].PostDialDelay
	if n.delayIsText {
		list.Text(n.delay, strconv.FormatFloat(delay, 'f', 3, 64))
		return
	}
	list.Number(n.delay, int64(delay))
}
