# The two networks of the lab; sourced by run.sh.
#
# loopback  everybody has the same address on lo, and is told apart by ports. It is the lo of a
#           network namespace, if one can be made: thousands of sockets of a neighbour would make
#           reading the kernel's tables slow, and ports could be taken. Else, or with LAB_HOST_NET, it
#           is the host's.
# netns     every party has a network namespace of its own and a veth to that of the
#           proxy, where Kamailio, the dispatcher and the relay are. The proxy does not
#           forward: media that does not pass the relay arrives nowhere.
#
#	caller 10.71.1.2 ---- 10.71.1.1 \
#	callee 10.71.2.2 ---- 10.71.2.1  > proxy, with the address 10.71.0.1
#	second 10.71.3.2 ---- 10.71.3.1 /
#
# IPv6 is the same with fd71:N::2.
#
# Sets PROXY_IP, and UAC, UAS, UAS2 with _IP, _IF (interface) and _NS (namespace, if any).

net_up() {
	case $net in
	loopback)
		case $family in 4) PROXY_IP=127.0.0.1 ;; 6) PROXY_IP=::1 ;; esac
		UAC_IP=$PROXY_IP UAS_IP=$PROXY_IP UAS2_IP=$PROXY_IP
		UAC_IF=lo UAS_IF=lo UAS2_IF=lo
		PROXY_NS=mplab-$$-all
		[ -z "$LAB_HOST_NET" ] && netns_new "$PROXY_NS" 2>/dev/null || PROXY_NS=""
		UAC_NS=$PROXY_NS UAS_NS=$PROXY_NS UAS2_NS=$PROXY_NS
		;;
	netns)
		PROXY_NS=mplab-$$-proxy
		netns_new "$PROXY_NS" || die "cannot make network namespaces; they need root with CAP_SYS_ADMIN"
		case $family in
		4) PROXY_IP=10.71.0.1 && ip -n "$PROXY_NS" addr add $PROXY_IP/32 dev lo ;;
		6) PROXY_IP=fd71::1 && ip -n "$PROXY_NS" addr add $PROXY_IP/128 dev lo ;;
		esac || die "cannot give the proxy its address $PROXY_IP"
		party_up UAC 1 caller && party_up UAS 2 callee && party_up UAS2 3 second ||
			die "cannot connect the namespaces by veth"
		;;
	esac
}

net_down() {
	local ns
	for ns in $(ip netns list 2>/dev/null | sed -n "s/^\(mplab-$$-[a-z]*\).*/\1/p"); do
		ip netns pids "$ns" | xargs -r kill -KILL 2>/dev/null
		ip netns del "$ns"
	done
}

netns_new() {
	ip netns add "$1" && ip -n "$1" link set lo up
}

party_up() { # variable prefix, number of its network, name
	local ns=mplab-$$-$3 own gate bits flags=""
	case $family in
	4) own=10.71.$2.2 gate=10.71.$2.1 bits=24 ;;
	# nodad: without it the address is unusable for a second
	6) own=fd71:$2::2 gate=fd71:$2::1 bits=64 flags=nodad ;;
	esac
	netns_new "$ns" &&
		ip link add name sip0 netns "$ns" type veth peer name "party$2" netns "$PROXY_NS" &&
		ip -n "$ns" addr add "$own/$bits" dev sip0 $flags &&
		ip -n "$PROXY_NS" addr add "$gate/$bits" dev "party$2" $flags &&
		ip -n "$ns" link set sip0 up &&
		ip -n "$PROXY_NS" link set "party$2" up &&
		ip -n "$ns" -"$family" route add default via "$gate" || return 1
	eval "$1_IP=$own $1_IF=sip0 $1_NS=$ns"
}

# within NAMESPACE command...   replaces the shell it runs in. Not by `ip netns exec`: that
# hides the BPF file system, where the relay keeps its kernel table.
within() {
	local ns=$1
	shift
	if [ -n "$ns" ]; then exec nsenter --net="/run/netns/$ns" -- "$@"; else exec "$@"; fi
}

# An address as URIs and sipp want it.
uri_ip() { case $1 in *:*) echo "[$1]" ;; *) echo "$1" ;; esac; }

# udp_bound NAMESPACE PORT   whether some socket of that namespace has the port
udp_bound() {
	local table=/proc/net/udp
	[ "$family" = 4 ] || table=/proc/net/udp6
	if [ -n "$1" ]; then ip netns exec "$1" cat $table; else cat $table; fi |
		grep -qE "^ *[0-9]+: [0-9A-F]+:$(printf %04X "$2") "
}
