package doctor

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	inputHook  = 1 // NF_INET_LOCAL_IN
	dropPolicy = 0 // NF_DROP
)

// families of netfilter that see IP.
var families = map[byte]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet"}

func (this) Chains() ([]Chain, error) {
	message := make([]byte, unix.SizeofNlMsghdr+4) // header, struct nfgenmsg: all families
	binary.NativeEndian.PutUint16(message[4:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETCHAIN)
	binary.NativeEndian.PutUint16(message[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	answers, err := dump(unix.NETLINK_NETFILTER, message)
	if err != nil {
		return nil, err
	}
	var out []Chain
	for _, m := range answers {
		if len(m.Data) < 4 {
			continue
		}
		c, input := chainOf(m.Data[4:])
		c.Family = families[m.Data[0]]
		if input && c.Family != "" {
			out = append(out, c)
		}
	}
	return out, nil
}

// chainOf reads the attributes of a chain, whose numbers have the order of the network.
func chainOf(b []byte) (c Chain, input bool) {
	for kind, value := range attributes(b) {
		switch kind {
		case unix.NFTA_CHAIN_TABLE:
			c.Table = word(value)
		case unix.NFTA_CHAIN_NAME:
			c.Name = word(value)
		case unix.NFTA_CHAIN_USE:
			c.Rules = bigNumber(value)
		case unix.NFTA_CHAIN_POLICY:
			c.Drops = bigNumber(value) == dropPolicy
		case unix.NFTA_CHAIN_HOOK:
			for kind, value := range attributes(value) {
				if kind == unix.NFTA_HOOK_HOOKNUM {
					input = bigNumber(value) == inputHook
				}
			}
		}
	}
	return c, input
}

func bigNumber(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	return int(binary.BigEndian.Uint32(b))
}
