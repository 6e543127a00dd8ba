#!/bin/sh
# Installs the Debian packages that the tests drive (Debian 12) and checks that the
# pieces are there. Does nothing when all of them are. Starts no service.
#
#   install.sh          what `make test` needs
#   install.sh bench    also what `make bench` compares with, and perf
set -eu

# gcc and libc6-dev: go test -race.   kamailio*, sip-tester: the SIP lab.
# nftables, iproute2, tcpdump: NAT and namespaces of the end-to-end tests.
# openssl, gnutls-bin: foreign TLS stacks that must be able to read our certificates.
# e2fsprogs: a disk that meets an error.   systemd: systemd-analyze checks the unit files.
# ethtool, libcap2-bin: what `mediaproxy doctor` finds, and the commands that it prints.
# freeradius: stores finished calls, and its dictionaries are read.
# clang-14 and llvm-14: the kernel program is built again and compared; other versions
# make other bytes.
packages="gcc libc6-dev kamailio kamailio-extra-modules sip-tester python3 util-linux
iproute2 nftables tcpdump e2fsprogs openssl gnutls-bin systemd ethtool libcap2-bin freeradius clang-14 llvm-14"
[ "${1:-}" = bench ] && packages="$packages rtpengine-daemon linux-perf"

missing=""
for p in $packages; do
	status=$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null) || status=""
	[ "$status" = installed ] || missing="$missing $p"
done

if [ -n "$missing" ]; then
	if ! command -v apt-get >/dev/null; then
		echo "install.sh: this is not Debian; the tests need the equivalents of:$missing" >&2
		exit 1
	fi
	if [ "$(id -u)" != 0 ]; then
		echo "install.sh: packages are missing and only root can install them. Type:" >&2
		echo "    sudo apt-get install -y --no-install-recommends$missing" >&2
		exit 1
	fi
	# Package scripts ask policy-rc.d before they start a service; 101 forbids it.
	# A policy that the machine already has stays as it is.
	policy=/usr/sbin/policy-rc.d
	made=""
	trap '[ -z "$made" ] || rm -f "$policy"' EXIT
	if [ ! -e "$policy" ]; then
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
		made=yes
	fi
	apt-get -q update
	# shellcheck disable=SC2086 # a list of names
	DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 \
		install -y --no-install-recommends $missing
fi

# Kernel tables that outlive a process lie in the BPF file system. systemd mounts it; a
# machine without it does so here, and keeps it until it is restarted.
bpffs() { [ "$(stat -f -c %t /sys/fs/bpf 2>/dev/null)" = cafe4a11 ]; }
if [ "$(id -u)" = 0 ] && ! bpffs; then
	mount -t bpf bpf /sys/fs/bpf || true # what follows says that it is missing
fi

bad=0
check() { # what it is, then the command that proves it
	what=$1
	shift
	if ! "$@" >/dev/null 2>&1; then
		echo "install.sh: missing or broken: $what" >&2
		bad=1
	fi
}
modules=""
for d in /usr/lib/*/kamailio/modules /usr/lib64/kamailio/modules; do
	[ -d "$d" ] && modules=$d
done
for m in mediaproxy dialog jsonrpcs tm rr sl pv textops siputils maxfwd xlog corex; do
	check "kamailio module $m" test -f "$modules/$m.so"
done
check "sipp with pcap play and RTP streams" sh -c 'sipp -v | grep -q PCAP-RTPSTREAM'
check "a C compiler for go test -race" sh -c 'printf "int main(void){return 0;}" | gcc -x c -o /dev/null -'
check "clang-14 for BPF, little and big endian" sh -c 'for t in bpfel bpfeb; do printf "int f(void){return 0;}" | clang-14 -target $t -x c -c -o /dev/null - || exit; done'
check "llvm-strip-14" llvm-strip-14 --version
check "python3 3.9 or newer" python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))'
check "systemd-analyze" command -v systemd-analyze
check "nft" command -v nft
check "ip" command -v ip
check "ethtool" command -v ethtool
check "setcap" command -v setcap
check "freeradius" /usr/sbin/freeradius -v
check "the dictionaries of freeradius" test -f /usr/share/freeradius/dictionary
[ "$(id -u)" != 0 ] || check "the BPF file system at /sys/fs/bpf" bpffs
[ "${1:-}" != bench ] || check "rtpengine" command -v rtpengine
exit $bad
