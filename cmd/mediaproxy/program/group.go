package program

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"

	"example.org/mediaproxy/internal/config"
)

// proxyGroups are the groups of SIP proxies, as their Debian packages make them.
var proxyGroups = []string{"opensips", "kamailio"}

// socketGroup is the group that may use the sockets. false: there is none, and only
// this user may.
func (h *host) socketGroup() (gid int, ok bool, err error) {
	if name := h.cfg.Dispatcher.SocketGroup; name != "" {
		gid, err := lookupGroup(name)
		if err != nil {
			return 0, false, config.Problems{h.cfg.Invalid("Dispatcher", "socket_group", err)}.Err()
		}
		return gid, true, nil
	}
	for _, name := range proxyGroups {
		gid, err := lookupGroup(name)
		if err != nil {
			continue
		}
		if !mayGive(gid) {
			h.log.Warn("the SIP proxy may not use the sockets: this user is not in its group; type: usermod -a -G "+name+" "+userName(), "group", name)
			return 0, false, nil
		}
		return gid, true, nil
	}
	h.log.Warn("the SIP proxy may not use the sockets unless it runs as the same user: there is no group " +
		proxyGroups[0] + " or " + proxyGroups[1] + "; name its group in config.ini, section [Dispatcher]: socket_group = GROUP")
	return 0, false, nil
}

func lookupGroup(name string) (int, error) {
	group, err := user.LookupGroup(name)
	if unknown := user.UnknownGroupError(""); errors.As(err, &unknown) {
		return 0, fmt.Errorf("there is no group %s on this host; type: groupadd --system %s", name, name)
	}
	if err != nil {
		return 0, fmt.Errorf("look up group %s: %w", name, err)
	}
	return strconv.Atoi(group.Gid)
}

// mayGive says whether this process may give a file to the group.
func mayGive(gid int) bool {
	groups, err := os.Getgroups()
	return os.Geteuid() == 0 || os.Getegid() == gid || err == nil && slices.Contains(groups, gid)
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Geteuid())
}
