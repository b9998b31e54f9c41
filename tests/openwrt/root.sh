# shellcheck shell=bash
# Functions that the tests of the OpenWrt package share: a root file system with busybox, our own stand-ins for
# OpenWrt's libraries (root/), and the package's files in their places. To be sourced, not run, from the project's
# directory.

FILES=openwrt/hearth/files
WORK=$PWD/target/openwrt
ROOT=$WORK/root
HEARTH=${HEARTH:-${HEARTH_BIN:-}}

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
	[ "$faults" = 0 ] && [ "$checks" -gt 0 ]
}

need_jsonfilter() {
	[ -x "$WORK/jsonfilter" ] && [ "$WORK/jsonfilter" -nt tests/openwrt/jsonfilter/main.go ] && return 0
	need_go && mkdir -p "$WORK" &&
		(cd tests/openwrt/jsonfilter && CGO_ENABLED=0 go build -o "$WORK/jsonfilter" .)
}

# need_hearth sets $HEARTH, if it names no program, to a build of these sources.
need_hearth() {
	if [ -n "$HEARTH" ]; then export HEARTH; return; fi
	export HEARTH=$PWD/target/debug/hearth
	need_rust && need_compiler && cargo build --locked --quiet --bin hearth
}

# The client as OpenWrt's feed builds it: one program, with the parts that the feed leaves out left out.
TAGS=ts_include_cli,ts_omit_aws,ts_omit_bird,ts_omit_completion,ts_omit_kube,ts_omit_systray,ts_omit_taildrop,ts_omit_tap,ts_omit_tpm
CLIENT=$WORK/bin/tailscaled

need_client() {
	local version
	version=$(sed -n 's/^\ttailscale.com \(v.*\)/\1/p' tests/interop/go.mod)
	[ -x "$CLIENT" ] && [ -e "$WORK/bin/$version" ] && return 0
	need_go || return 1
	say "building tailscaled $version from the Go module"
	CGO_ENABLED=0 GOBIN=$WORK/bin go install -tags "$TAGS" "tailscale.com/cmd/tailscaled@$version" &&
		rm -f "$WORK"/bin/v* && touch "$WORK/bin/$version"
}

# put FILE PLACE MODE copies a file into the root.
put() { install -D -m "$3" "$1" "$ROOT$2"; }

# device NAME MAJOR MINOR makes one in the root; where that is not allowed a file has to do.
device() { mknod -m 666 "$ROOT/dev/$1" c "$2" "$3" 2>/dev/null || : >"$ROOT/dev/$1"; }

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
	device null 1 3
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
