# shellcheck shell=bash
# Functions that the tests of the OpenWrt package share: a root file system with busybox, our own stand-ins for
# OpenWrt's libraries (root/), and the package's files in their places. To be sourced, not run, from the project's
# directory.

FILES=openwrt/hearth/files
WORK=$PWD/target/openwrt
ROOT=$WORK/root
HEARTH=${HEARTH:-$PWD/target/debug/hearth}

checks=0 faults=0

# check NAME CONDITION... counts a condition, and tells when it does not hold.
check() {
	local name=$1; shift
	checks=$((checks + 1))
	"$@" && return 0
	faults=$((faults + 1))
	echo "FAILED: $name"
	return 1
}

# has FILE TEXT: one of the lines of a file has the text.
has() { grep -qsF -- "$2" "$1"; }
lacks() { ! grep -qsF -- "$2" "$1"; }
same() { [ "$1" = "$2" ] || { echo "  expected: $2"; echo "  found:    $1"; return 1; }; }

finish() {
	echo "$checks checks, $faults failed"
	[ "$faults" = 0 ]
}

need_busybox() { need_package busybox-static busybox "the scripts run in its shell, as on a router"; }

need_jsonfilter() {
	[ -x "$WORK/jsonfilter" ] && [ "$WORK/jsonfilter" -nt tests/openwrt/jsonfilter/main.go ] && return 0
	need_go && mkdir -p "$WORK" &&
		(cd tests/openwrt/jsonfilter && CGO_ENABLED=0 go build -o "$WORK/jsonfilter" .)
}

need_hearth() {
	[ -x "$HEARTH" ] && return 0
	need_rust && need_compiler && cargo build --locked --bin hearth
}

# put FILE PLACE MODE copies a file into the root.
put() { install -D -m "$3" "$1" "$ROOT$2"; }

# make_root makes the root file system anew.
make_root() {
	rm -rf --one-file-system "$ROOT"
	mkdir -p "$ROOT"/{bin,dev,proc,sys,tmp,var/run,etc/config,etc/uci,etc/rc.d,usr/bin,usr/sbin,sbin}
	cp "$(command -v busybox)" "$ROOT/bin/busybox"
	local applet
	for applet in $(busybox --list | grep -vx busybox); do
		ln -sf /bin/busybox "$ROOT/bin/$applet"
	done
	cp -a tests/openwrt/root/. "$ROOT/"
	printf 'root:x:0:0:root:/root:/bin/sh\nhearth:x:894:894:hearth:/var/run/hearth:/bin/false\n' >"$ROOT/etc/passwd"
	printf 'root:x:0:\nhearth:x:894:\n' >"$ROOT/etc/group"
	printf 'lan 192.168.1.1/24 fd12:3456:789a::/60\nguest 192.168.7.1/24,10.9.8.7/22 2001:db8::/64\n' >"$ROOT/etc/netifd"
	mknod -m 666 "$ROOT/dev/null" c 1 3
	put $FILES/hearth.init /etc/init.d/hearth 755
	put $FILES/hearth.uci.sh /usr/share/hearth/uci.sh 644
	put $FILES/hearth.member /usr/libexec/hearth/member 755
	put $FILES/hearth.hotplug /etc/hotplug.d/iface/96-hearth 755
	put $FILES/hearth.defaults /etc/uci-defaults/95_hearth 755
	put $FILES/hearth.upgrade.sh /lib/upgrade/hearth.sh 644
	put $FILES/hearth.capabilities.json /etc/capabilities/hearth.json 644
	put $FILES/hearth.config /etc/config/hearth 600
	[ -z "${JSHN:-}" ] || real_jshn
}

# With $JSHN, a folder in which OpenWrt's libubox is installed, the real jshn takes the place of the stand-in.
real_jshn() {
	with_libraries "$JSHN/bin/jshn" /usr/bin/jshn
	cp -a "$JSHN"/lib/*.so* "$ROOT/lib/"
	put "$JSHN/share/libubox/jshn.sh" /usr/share/libubox/jshn.sh 644
}

# with_libraries PROGRAM PLACE puts a program of this machine into the root, with the libraries that it loads.
with_libraries() {
	local library
	put "$1" "$2" 755
	for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
		put "$(readlink -f "$library")" "$library" 755
	done
}

# in_root COMMAND... runs a command there, with nothing of this machine's environment.
in_root() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root chroot "$ROOT" "$@"; }

# init ACTION runs the init script as procd would; its calls are in $ROOT/tmp/procd afterwards.
init() { rm -f "$ROOT/tmp/log"; in_root /bin/sh /etc/rc.common /etc/init.d/hearth "$@"; }

# procd_command INSTANCE prints the command that procd would run, one word in a line.
procd_command() {
	awk -v name="[instance][$1]" '$0 == name { on = 1 } /^\[end\]/ { on = 0 } on && /^\[command\]/ { print; exit }' "$ROOT/tmp/procd" |
		sed 's/^\[command\]\[//; s/\]$//; s/\]\[/\n/g'
}

# eventually SECONDS COMMAND... tries until it works.
eventually() {
	local deadline=$((SECONDS + $1)); shift
	until "$@"; do
		[ "$SECONDS" -lt "$deadline" ] || return 1
		sleep 0.2
	done
}
