package radius

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"example.org/mediaproxy/internal/config"
)

// Settings are what the files of a client say.
type Settings struct {
	Servers       []Server
	Timeout       time.Duration // between two transmissions
	Transmissions int           // of one request to one server
	DeadTime      time.Duration // that a server is passed over which did not answer; 0: never
	Bind          netip.Addr    // not valid: any
	Dictionary    *Dictionary
}

// Server is one that takes Accounting-Requests.
type Server struct {
	Host   string // name or address
	Port   uint16
	Secret Secret
	Origin string // of the secret: file and line
}

func (s Server) String() string { return net.JoinHostPort(s.Host, strconv.Itoa(int(s.Port))) }

const (
	accountingPort  = 1813
	defaultTimeout  = 10 * time.Second
	defaultTries    = 3
	defaultDeadTime = time.Minute
	maxTimeout      = 3600 // seconds; beyond it somebody took them for milliseconds
	maxTries        = 1000
)

// clientConf is what is found in a client.conf.
type clientConf struct {
	Settings
	servers, dictionary line // their words: the name and the path
	accounting          []line
	bind                line
}

// Read reads the configuration of a client, in the form of radiusclient and its
// descendants, with the files that it names, and a dictionary besides. It returns all that is
// wrong; an additional dictionary that is missing is a notice.
func Read(conf, additional string) (Settings, config.Problems) {
	return (&reader{read: readFile}).settings(conf, additional)
}

func (r *reader) settings(conf, additional string) (Settings, config.Problems) {
	lines, err := r.lines(conf)
	if err != nil {
		r.problem(config.Error, conf, 0, "%v: want the configuration of a RADIUS client, with at least the lines `acctserver HOST`, `servers FILE` (in it lines `HOST SECRET`) and `dictionary FILE`", err)
		return Settings{}, r.problems
	}
	c := clientConf{Settings: Settings{Timeout: defaultTimeout, Transmissions: defaultTries, DeadTime: defaultDeadTime}}
	for _, l := range lines {
		if len(l.words) > 1 { // a name alone says nothing, for the original neither
			r.setting(&c, l)
		}
	}
	secrets := r.secrets(conf, c.servers)
	for _, l := range c.accounting {
		r.accountingServers(&c, l, secrets)
	}
	if len(c.accounting) == 0 {
		r.problem(config.Error, conf, 0, "it names no server: want a line `acctserver HOST` or `acctserver HOST:PORT`")
	}
	r.checkFamilies(&c)
	c.Dictionary = r.dictionaries(conf, c.dictionary, additional)
	return c.Settings, r.problems
}

// setting takes one line. Names that only other programs read are passed over.
func (r *reader) setting(c *clientConf, l line) {
	switch strings.ToLower(l.words[0]) {
	case "acctserver":
		c.accounting = append(c.accounting, l)
	case "servers":
		c.servers = l
	case "dictionary":
		c.dictionary = l
	case "radius_timeout":
		if n, ok := r.number(l, 1, maxTimeout, "seconds"); ok {
			c.Timeout = time.Duration(n) * time.Second
		}
	case "radius_retries":
		if n, ok := r.number(l, 1, maxTries, "transmissions"); ok {
			c.Transmissions = n
		}
	case "radius_deadtime":
		if n, ok := r.number(l, 0, 24*maxTimeout, "seconds"); ok {
			c.DeadTime = time.Duration(n) * time.Second
		}
	case "bindaddr":
		c.Bind, c.bind = netip.Addr{}, l
		if l.words[1] == "*" {
			return
		}
		a, err := netip.ParseAddr(plain(l.words[1]))
		if err != nil {
			r.wrong(l, "bindaddr %q: want an IP address of this host, or * for any", l.words[1])
			return
		}
		c.Bind = a.Unmap()
	}
}

func (r *reader) number(l line, least, most int, unit string) (int, bool) {
	n, err := strconv.Atoi(l.words[1])
	if err != nil || n < least || n > most {
		r.wrong(l, "%s %q: want a number of %s from %d to %d", l.words[0], l.words[1], unit, least, most)
		return 0, false
	}
	return n, true
}

// secret is a line of the servers file.
type secret struct {
	line
	hosts []string
}

// secrets reads the servers file: `host secret`, where older files write `client/server`
// for host. Nil: it cannot be read, which is noted.
func (r *reader) secrets(conf string, l line) []secret {
	if l.words == nil {
		r.problem(config.Error, conf, 0, "it names no file with secrets: want a line `servers FILE`, and in that file lines `HOST SECRET`")
		return nil
	}
	lines, err := r.lines(beside(conf, l.words[1]))
	if err != nil {
		r.wrong(l, "servers %s (%s): %v: want a file with lines `HOST SECRET` that this user may read", l.words[1], beside(conf, l.words[1]), err)
		return nil
	}
	list := []secret{}
	for _, l := range lines {
		if len(l.words) > 1 {
			list = append(list, secret{l, strings.Split(l.words[0], "/")})
		}
	}
	return list
}

// accountingServers reads a line of them: separated by commas or spaces, each `host`,
// `host:port` or, as newer clients have it, `host:port:secret`.
func (r *reader) accountingServers(c *clientConf, l line, secrets []secret) {
	for _, word := range strings.FieldsFunc(strings.Join(l.words[1:], " "), func(c rune) bool { return c == ',' || c == ' ' }) {
		s, err := parseServer(word)
		if err != nil {
			r.wrong(l, "acctserver: %v", err) // the word may have a secret in it
			continue
		}
		if s.Secret != "" {
			s.Origin = l.place()
		} else if !r.findSecret(&s, l, secrets, c.servers) {
			continue
		}
		c.Servers = append(c.Servers, s)
	}
}

func (r *reader) findSecret(s *Server, l line, secrets []secret, file line) bool {
	for _, known := range secrets {
		if !known.names(s.Host) {
			continue
		}
		if len(known.words) > 2 {
			r.wrong(known.line, "the secret of %s has a space in it: want HOST SECRET, the secret as one word", s.Host)
			return false
		}
		s.Secret, s.Origin = Secret(known.words[1]), known.place()
		return true
	}
	if secrets != nil { // else the file itself is the problem
		r.wrong(l, "acctserver %s has no secret: want a line `%s SECRET` in %s", s.Host, s.Host, beside(file.file, file.words[1]))
	}
	return false
}

func (s secret) names(host string) bool {
	for _, h := range s.hosts {
		h = plain(h)
		if strings.EqualFold(h, host) {
			return true
		}
		a, err := netip.ParseAddr(h)
		if b, other := netip.ParseAddr(host); err == nil && other == nil && a == b {
			return true
		}
	}
	return false
}

// plain is an address without the brackets that IPv6 may stand in.
func plain(word string) string {
	if strings.HasPrefix(word, "[") && strings.HasSuffix(word, "]") {
		return word[1 : len(word)-1]
	}
	return word
}

func (l line) place() string { return l.file + ":" + strconv.Itoa(l.n) }

// parseServer reads one server. Its errors do not show the word.
func parseServer(word string) (Server, error) {
	want := errors.New("want HOST or HOST:PORT, an IPv6 address in brackets")
	if a, err := netip.ParseAddr(plain(word)); err == nil {
		return Server{Host: a.String(), Port: accountingPort}, nil
	}
	host, rest, hasPort := strings.Cut(word, ":")
	if strings.HasPrefix(word, "[") {
		end := strings.IndexByte(word, ']')
		if end < 0 || end+1 < len(word) && word[end+1] != ':' {
			return Server{}, want
		}
		a, err := netip.ParseAddr(word[1:end])
		if err != nil {
			return Server{}, want
		}
		host, hasPort, rest = a.String(), end+1 < len(word), strings.TrimPrefix(word[end+1:], ":")
	}
	s := Server{Host: host, Port: accountingPort}
	port, own, hasSecret := strings.Cut(rest, ":")
	if hasPort && port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return Server{}, errors.New("the port of " + host + " is no number from 1 to 65535: want HOST:PORT")
		}
		s.Port = uint16(n)
	}
	if host == "" || hasPort && port == "" && !hasSecret || hasSecret && own == "" {
		return Server{}, want
	}
	s.Secret = Secret(own)
	return s, nil
}

// checkFamilies finds servers that cannot be reached from the address to send from.
func (r *reader) checkFamilies(c *clientConf) {
	for _, s := range c.Servers {
		if a, err := netip.ParseAddr(s.Host); err == nil && c.Bind.IsValid() && a.Unmap().Is4() != c.Bind.Is4() {
			r.wrong(c.bind, "bindaddr %s cannot reach the acctserver %s, which has an address of the other family: want *, or an address of its family", c.Bind, s.Host)
		}
	}
}

// dictionaries reads the main one and the additional one behind it.
func (r *reader) dictionaries(conf string, main line, additional string) *Dictionary {
	d := r.dictionary()
	if main.words == nil {
		r.problem(config.Error, conf, 0, "it names no dictionary: want a line `dictionary FILE`")
	} else {
		d.File = beside(conf, main.words[1])
		if err := d.include(d.File, nil, ""); err != nil {
			r.wrong(main, "dictionary %s (%s): %v", main.words[1], d.File, err)
		}
	}
	if additional == "" {
		return d.Dictionary
	}
	switch err := d.include(additional, nil, ""); {
	case errors.Is(err, errNoFile):
		r.problem(config.Notice, additional, 0, "%v; what it would define has the built-in numbers", err)
	case err != nil:
		r.problem(config.Error, additional, 0, "%v", err)
	}
	return d.Dictionary
}
