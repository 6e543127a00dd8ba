#!/usr/bin/env bash
# Calls between real phones (sipp) through a real SIP proxy (Kamailio) and the program.
#
#   run.sh list                      the scenarios
#   run.sh [options] SCENARIO...     run some; `all` is every one
#
#   -m engage|use       how Kamailio uses the module (default engage)
#   -n loopback|netns   the network (default loopback)
#   -f auto|tc|clsact|sk_lookup|off   what moves the media (default auto: the kernel in netns)
#   -6                  IPv6
#   -k                  keep the work folder and say where it is
#   -v                  show the SIP messages of every call
#
# One line for each scenario: PASS, FAIL(why) or SKIP (does not exist in this mode); before
# it AGAIN(why), when a call failed while the machine stood still and is made once more.
# Exit code 0: no FAIL. 1: at least one. 2: the lab is broken.
set -u
here=$(cd "$(dirname "$0")" && pwd)

: "${LAB_SIP_PORT:=15060}"            # Kamailio; every number here may be changed, so that
: "${LAB_UAC_PORT:=15070}"            # several labs fit on one loopback interface
: "${LAB_UAS_PORT:=15080}"
: "${LAB_UAS2_PORT:=15085}"
: "${LAB_CONTROL_PORT:=15090}"        # sipp's own, three of them
: "${LAB_LINK_PORT:=15066}"           # dispatcher, for relays
: "${LAB_MANAGEMENT_PORT:=15067}"
: "${LAB_UAC_MEDIA:=17900}"           # audio; RTCP is one above, video two
: "${LAB_UAS_MEDIA:=17910}"
: "${LAB_UAS2_MEDIA:=17920}"
: "${LAB_RELAY_PORTS:=16000-17799}"
: "${LAB_MP_TIMEOUT:=500}"            # ms the module waits for an answer; its own default
: "${LAB_MEDIA_TIMEOUT:=2}"           # s of silence that end a call, in media-timeout only
: "${LAB_STALL_LIMIT:=200}"            # ms; see stood_still
: "${LAB_CALL_LIMIT:=25}"             # s that one call may take
: "${LAB_HOST_NET:=}"                 # set: loopback is the host's, whose servers are then reached
: "${LAB_ACCOUNTING:=}"               # back-ends, and a file with their sections
: "${LAB_ACCOUNTING_CONFIG:=}"
: "${LAB_RELAY_CMD:=}"                # what serves the module; empty: the program in bin/
: "${LAB_BIN:=$here/../../bin/mediaproxy}"

# shellcheck source=test/lab/net.sh
. "$here/net.sh"
die() { echo "run.sh: $*" >&2; exit 2; }
usage() { sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 2; }

mode=engage net=loopback family=4 fast=auto keep=0 verbose=0
while getopts m:n:f:6kvh opt; do
	case $opt in
	m) mode=$OPTARG ;;
	n) net=$OPTARG ;;
	f) fast=$OPTARG ;;
	6) family=6 ;;
	k) keep=1 ;;
	v) verbose=1 ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
case $mode-$net in engage-loopback | engage-netns | use-loopback | use-netns) ;; *) usage ;; esac
# By this the established media has to be moved. On loopback the parties are on the relay's
# own host, where the kernel moves nothing.
case $net-$fast in
netns-auto | netns-tc | netns-clsact) mover=tc ;;
*-auto | *-tc | *-clsact | *-sk_lookup | *-off) mover=user-space ;;
*) usage ;;
esac
[ $# -gt 0 ] || usage

ALL="audio bye-callee hold-resume hold-zero update-hold reinvite-callee audio-video video-rejected
add-video t38 early-media early-answer late-offer ice fork cancel cancel-early busy end-dialog media-timeout"
names=""
for s in "$@"; do
	case $s in
	list)
		for s in $ALL; do printf '%-16s %s\n' "$s" "$(sed -n '2s/<!-- Caller: \(.*\) -->/\1/p' "$here/scenarios/$s.uac.xml")"; done
		exit 0
		;;
	all) names="$names $ALL" ;;
	*) [ -f "$here/scenarios/$s.uac.xml" ] || die "no scenario $s (see: run.sh list)"; names="$names $s" ;;
	esac
done

# --- processes: everything started is in $pids and is gone when this script is

work=$(mktemp -d "${TMPDIR:-/tmp}/mplab.XXXXXX") || exit 2
export PYTHONDONTWRITEBYTECODE=1 TERM="${TERM:-xterm}"
pids="" lock=""
alive() { kill -0 "$1" 2>/dev/null; }
gone() { ! alive "$1"; }
wait_for() { # seconds, condition...
	local left=$(($1 * 40))
	shift
	until "$@"; do
		left=$((left - 1))
		[ $left -gt 0 ] || return 1
		sleep 0.025
	done
}
stop_all() {
	local p
	for p in $pids; do
		alive "$p" || continue
		kill -TERM "$p"
		wait_for 5 gone "$p" || kill -KILL "$p" $(cat /proc/"$p"/task/"$p"/children 2>/dev/null) 2>/dev/null
	done 2>/dev/null
	for p in $pids; do wait "$p" 2>/dev/null; done
	pids=""
}
finish() {
	stop_all
	[ -z "${d:-}" ] || rm -rf "$(pins)"
	net_down
	if [ $keep = 1 ]; then echo "work folder: $work" >&2; else rm -rf "$work"; fi
	[ -z "$lock" ] || rm -f "$lock"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 141' PIPE

net_up
# Without namespaces the ports are shared by everybody: one lab at a time. The holder removes
# the file when it ends; then the lock is one on a file of no name, and has to be taken again.
exec 9>/dev/null
if [ -z "$PROXY_NS" ]; then
	until [ -n "$lock" ]; do
		exec 9>"${TMPDIR:-/tmp}/mplab-$LAB_SIP_PORT.lock"
		flock -w 900 9 || die "another lab holds the ports for 15 minutes now"
		[ "${TMPDIR:-/tmp}/mplab-$LAB_SIP_PORT.lock" -ef /proc/$$/fd/9 ] && lock=${TMPDIR:-/tmp}/mplab-$LAB_SIP_PORT.lock
	done
fi
python3 "$here/media.py" "$work/media" || die "cannot make the media"

# --- one call

party() { # name, prefix of its variables, its ports
	local ip=$2_IP if=$2_IF ns=$2_NS
	echo "--party=$1=${!ip},$3,$4,${!if}${!ns:+,${!ns}}"
}

# agent SCENARIO who ip namespace port media control-port [sipp's arguments]
agent() {
	local scenario=$1 who=$2 ip=$3 ns=$4 port=$5 media=$6 control=$7
	shift 7
	(cd "$d" && within "$ns" sipp "$@" -sf "$scenario.$who.xml" -i "$(uri_ip "$ip")" -p "$port" -mi "$(uri_ip "$ip")" -mp "$media" \
		-ci 127.0.0.1 -cp "$control" -key rtp "$media" -key rtcp $((media + 1)) -m 1 -nostdin -timeout "$LAB_CALL_LIMIT" -timeout_error \
		-trace_err -error_file "$who.err" >"$who.out" 2>&1 9>&-) &
	pids="$pids $!"
}

# The relay side, listening at $mp. Sets relay.
start_relay_side() {
	local cmd=${LAB_RELAY_CMD:-'"$LAB_HERE/relay-side.sh"'} idle=""
	[ "$1" = media-timeout ] && idle=$LAB_MEDIA_TIMEOUT
	export LAB_HERE=$here LAB_BIN LAB_WORK=$d LAB_SHARED=$work LAB_READY=$d/ready LAB_MODE=$mode \
		LAB_MP_SOCKET_PATH=$mp LAB_RPC_SOCKET=$d/rpc.sock LAB_RELAY_IP=$PROXY_IP LAB_RELAY_PORTS LAB_LINK_PORT LAB_MANAGEMENT_PORT LAB_IDLE_TIMEOUT=$idle LAB_FAST_PATH=$fast LAB_ACCOUNTING LAB_ACCOUNTING_CONFIG
	[ -n "$LAB_RELAY_CMD" ] && : >"$d/ready"
	(within "$PROXY_NS" bash -c "exec $cmd") >"$d/relay-side.log" 2>&1 9>&- &
	relay=$!
	pids="$relay"
	relay_ready() { gone "$relay" || { [ -e "$d/ready" ] && [ -S "$mp" ]; }; }
	wait_for 10 relay_ready && alive "$relay"
}

start_kamailio() {
	local defs=(-A "LISTEN=udp:$(uri_ip "$PROXY_IP"):$LAB_SIP_PORT" -A "CALLEE=\"sip:$(uri_ip "$UAS_IP"):$LAB_UAS_PORT\""
		-A "RPC=\"$rpc\"" -A "MP_SOCKET=\"$mp\"" -A "MP_TIMEOUT=$LAB_MP_TIMEOUT")
	[ -f "$d/$1.uas2.xml" ] && defs+=(-A "CALLEE2=\"sip:callee2@$(uri_ip "$UAS2_IP"):$LAB_UAS2_PORT\"")
	[ "$mode" = use ] && defs+=(-A USE)
	[ "$1" = ice ] && defs+=(-A 'MP_ICE="low-priority"')
	(within "$PROXY_NS" kamailio -DD -E -f "$here/kamailio.cfg" "${defs[@]}" -Y "$d" -w "$d" -m 32 -M 4) >"$d/kamailio.log" 2>&1 9>&- &
	kamailio=$!
	pids="$kamailio $pids"
	kamailio_ready() { gone "$kamailio" || { [ -S "$rpc" ] && udp_bound "$PROXY_NS" "$LAB_SIP_PORT"; }; }
	wait_for 10 kamailio_ready && alive "$kamailio"
}

start_meter() {
	local parties=("$(party uac UAC "$LAB_UAC_PORT" "$LAB_UAC_MEDIA")" "$(party uas UAS "$LAB_UAS_PORT" "$LAB_UAS_MEDIA")")
	[ -f "$d/$1.uas2.xml" ] && parties+=("$(party uas2 UAS2 "$LAB_UAS2_PORT" "$LAB_UAS2_MEDIA")")
	python3 "$here/meter.py" "$1" "${parties[@]}" --ready "$d/meter.ready" --out "$d" >"$d/meter.out" 2>&1 9>&- &
	meter=$!
	pids="$pids $meter"
	meter_ready() { [ -e "$d/meter.ready" ] || gone "$meter"; }
	wait_for 10 meter_ready && alive "$meter"
}

# For end-dialog: the operator of the proxy ends the call after a second of media.
end_from_outside() {
	answered() { gone "$1" || python3 "$here/jsonrpc.py" "$rpc" dlg.stats_active 2>/dev/null | grep -q '"ongoing": 1'; }
	wait_for 10 answered "$1"
	sleep 1
	python3 "$here/jsonrpc.py" "$rpc" --end-all >"$d/jsonrpc.log" 2>&1
}

# What moved the media, as the relay's summary tells at the end. Sets moved, adds to why.
count_moved() {
	local summary packets kernel
	moved=""
	[ -z "$LAB_RELAY_CMD" ] || return
	summary=$("$LAB_BIN" ctl --runtime-dir "$d/relay-side/run" summary --json 2>&1)
	number() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" <<<"$summary"; }
	packets=$(number packets) kernel=$(number kernel_packets)
	moved=" moved_by=$mover kernel=${kernel:-0}/${packets:-0}"
	grep -q "\"mover\": \"$mover\"" <<<"$summary" || why="$why not-moved-by-$mover"
	# The first packets of a stream go through user space, and each after its address changed.
	if [ $mover = tc ]; then
		[ -e "$(pins)/v1/flows" ] || [ "$(stat -f -c %T /sys/fs/bpf)" != bpf_fs ] || why="$why not-pinned"
		[ "${kernel:-0}" -ge $((${packets:-0} * 8 / 10)) ] || why="$why not-in-the-kernel"
	else
		[ "${kernel:-0}" = 0 ] || why="$why in-the-kernel"
	fi
}

# The relay's name among the pins in the BPF file system.
pins() { echo "/sys/fs/bpf/mediaproxy/$(sed 's|^/||; s|[^a-zA-Z0-9]|_|g' <<<"$d/relay-side/state-relay")"; }

# Sets why (empty: all is well) and figures.
call() {
	local s=$1 mp=$d/dispatcher.sock rpc=$d/rpc.sock relay kamailio meter codes="" uac uas uas2="" p moved
	for p in "$LAB_SIP_PORT" "$LAB_UAC_PORT" "$LAB_UAS_PORT" "$LAB_UAC_MEDIA" "$LAB_UAS_MEDIA"; do
		if [ -z "$PROXY_NS" ] && udp_bound "" "$p"; then why="setup: port $p is in use"; return; fi
	done
	start_relay_side "$s" || { why="setup: the relay side did not start"; return; }
	start_kamailio "$s" || { why="setup: Kamailio did not start"; return; }
	start_meter "$s" || { why="setup: no meter"; return; }
	agent "$s" uas "$UAS_IP" "$UAS_NS" "$LAB_UAS_PORT" "$LAB_UAS_MEDIA" $((LAB_CONTROL_PORT + 1))
	uas=$!
	if [ -f "$d/$s.uas2.xml" ]; then
		agent "$s" uas2 "$UAS2_IP" "$UAS2_NS" "$LAB_UAS2_PORT" "$LAB_UAS2_MEDIA" $((LAB_CONTROL_PORT + 2))
		uas2=$!
		wait_for 10 udp_bound "$UAS2_NS" "$LAB_UAS2_PORT" || { why="setup: no second callee"; return; }
	fi
	wait_for 10 udp_bound "$UAS_NS" "$LAB_UAS_PORT" || { why="setup: no callee"; return; }
	agent "$s" uac "$UAC_IP" "$UAC_NS" "$LAB_UAC_PORT" "$LAB_UAC_MEDIA" "$LAB_CONTROL_PORT" "$(uri_ip "$PROXY_IP"):$LAB_SIP_PORT" -l 1 -r 1
	uac=$!
	[ "$s" = end-dialog ] && { end_from_outside "$uac" || why="$why jsonrpc"; }

	wait "$uac" || { codes="-uac=$?"; kill -TERM "$uas" $uas2 2>/dev/null; }
	wait "$uas" || codes="$codes-uas=$?"
	[ -z "$uas2" ] || wait "$uas2" || codes="$codes-uas2=$?"
	[ -z "$codes" ] || why="$why sip$codes"
	kill -TERM "$meter"
	wait "$meter" || why="$why media"
	count_moved
	alive "$relay" || why="$why relay-side-ended"
	stop_all
	[ ! -e "$(pins)" ] || { why="$why pins-left"; rm -rf "$(pins)"; }
	local byes
	byes=$(grep -c 'lab: local BYE' "$d/kamailio.log")
	case $s in media-timeout | end-dialog) [ "$byes" = 2 ] || why="$why proxy-byes=$byes" ;; esac
	if [ "$s" = media-timeout ] && [ -z "$LAB_RELAY_CMD" ]; then
		grep -q 'msg="call over".* reason=timeout ' "$d/dispatcher.log" || why="not-expired $why"
		grep -q 'msg="dialog ended by the SIP proxy"' "$d/dispatcher.log" || why="not-hung-up $why"
	fi
	grep -q 'did timeout waiting for an answer' "$d/kamailio.log" && why="$why module-timeout"
	grep -q 'ERROR: mediaproxy' "$d/kamailio.log" && why="$why module-errors"
	figures="sip=$([ -z "$codes" ] && echo ok || echo FAILED) $(tail -1 "$d/meter.out")$moved proxy_byes=$byes"
}

tell_why() {
	grep -h '^problem' "$d/meter.out"
	grep -h 'ERROR\|CRITICAL' "$d/kamailio.log" | head -5
	tail -n 5 "$d/relay-side.log"
	grep -h 'level=WARN\|level=ERROR\|packets ' "$d/relay.log" | head -5
	cat "$d"/*.err | grep -v '^$' | head -10
	cat "$d/ladder.txt"
} 2>/dev/null

# The phones and the module have limits in real time. When even the meter, which does next to
# nothing, got no processor for a good part of the module's 500 ms, a failure says nothing
# about the program.
stood_still() {
	local ms
	ms=$(sed -n 's/.* stall_ms=\([0-9]*\)$/\1/p' "$d/meter.out" 2>/dev/null)
	[ -n "$ms" ] && [ "$ms" -gt "$LAB_STALL_LIMIT" ]
}

failed=0 count=0
for s in $names; do
	count=$((count + 1))
	tag="$s mode=$mode net=$net family=$family"
	case $mode-$s in
	use-end-dialog | use-media-timeout) echo "SKIP $tag: without engage_media_proxy Kamailio has no dialog to end"; continue ;;
	esac
	case $family-$s in
	6-hold-zero) echo "SKIP $tag: holding with the address 0.0.0.0 is an IPv4 custom"; continue ;;
	esac
	d=$work/$s
	for try in 1 2 3; do
		why="" figures=""
		rm -rf "$d"
		mkdir -p "$d" && cp "$work"/media/* "$here/scenarios/$s".*.xml "$d"/ || exit 2
		call "$s"
		stop_all
		why=$(echo $why)
		[ -n "$why" ] && [ $try -lt 3 ] && stood_still || break
		echo "AGAIN($why) $tag $figures"
	done
	[ $verbose = 0 ] || cat "$d/ladder.txt"
	if [ -z "$why" ]; then
		echo "PASS $tag $figures"
	else
		failed=$((failed + 1))
		tell_why >&2
		echo "FAIL($why) $tag $figures"
	fi
done
[ $count = 1 ] || echo "TOTAL mode=$mode net=$net family=$family scenarios=$count failed=$failed"
[ $failed = 0 ]
