#!/usr/bin/env bash
# The relay side of the lab: a dispatcher and a relay as two processes, with certificates
# and configurations made for this run. Ends both at TERM. Started by run.sh, which tells
# it everything in LAB_ variables; see README.md.
set -u
bin=${LAB_BIN:?}
work=$LAB_WORK/relay-side
mkdir -p "$work/dispatcher" "$work/relay" "$work/run"
fail() { echo "relay-side.sh: $*" >&2; exit 1; }

# One CA for the whole run of the lab.
certs=$LAB_SHARED/certs
[ -d "$certs" ] || "$bin" certs "$certs" >"$LAB_SHARED/certs.log" 2>&1 ||
	{ cat "$LAB_SHARED/certs.log" >&2; fail "cannot make certificates"; }

cat >"$work/dispatcher/config.ini" <<INI || exit 1
[Dispatcher]
socket_path = $LAB_MP_SOCKET_PATH
listen = 127.0.0.1:$LAB_LINK_PORT
listen_management = 127.0.0.1:$LAB_MANAGEMENT_PORT
log_level = DEBUG
state_dir = $work/state-dispatcher
accounting = ${LAB_ACCOUNTING:-}

[Hangup]
socket_path = $LAB_RPC_SOCKET

[TLS]
certs_path = $certs

$([ -z "${LAB_ACCOUNTING_CONFIG:-}" ] || cat "$LAB_ACCOUNTING_CONFIG")
INI
cat >"$work/relay/config.ini" <<INI || exit 1
[Relay]
dispatchers = 127.0.0.1:$LAB_LINK_PORT
relay_ip = $LAB_RELAY_IP
port_range = ${LAB_RELAY_PORTS%-*}:$((${LAB_RELAY_PORTS#*-} + 1))
reconnect_delay = 1
log_level = DEBUG
state_dir = $work/state-relay
fast_path = $LAB_FAST_PATH
on_stop = end
${LAB_IDLE_TIMEOUT:+idle_timeout = $LAB_IDLE_TIMEOUT}

[TLS]
certs_path = $certs
INI

relay="" dispatcher=""
# The relay first: its calls are reported while the dispatcher still listens.
stop() {
	trap - TERM INT
	for pid in $relay $dispatcher; do
		kill -TERM "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	exit 0
}
trap stop TERM INT

"$bin" dispatcher --config-dir "$work/dispatcher" --runtime-dir "$work/run" >"$LAB_WORK/dispatcher.log" 2>&1 &
dispatcher=$!
for _ in $(seq 200); do
	[ -S "$LAB_MP_SOCKET_PATH" ] && break
	kill -0 $dispatcher 2>/dev/null || { tail -5 "$LAB_WORK/dispatcher.log" >&2; fail "the dispatcher ended"; }
	sleep 0.02
done
"$bin" relay --config-dir "$work/relay" --runtime-dir "$work/run" >"$LAB_WORK/relay.log" 2>&1 &
relay=$!
# The socket alone is not enough: the first call needs a connected relay.
for _ in $(seq 200); do
	kill -0 $relay 2>/dev/null || { tail -5 "$LAB_WORK/relay.log" >&2; kill $dispatcher; fail "the relay ended"; }
	"$bin" ctl --runtime-dir "$work/run" summary --json 2>"$LAB_WORK/ctl.log" | grep -q '"status": *"active"' && break
	sleep 0.05
done
: >"$LAB_READY"
wait -n $relay $dispatcher
echo "relay-side.sh: a program ended by itself" >&2
stop
