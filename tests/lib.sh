# shellcheck shell=bash
# Functions that the scripts in tests/ share: each makes sure that one tool is
# there, and says what it installs and why. To be sourced, not run, from the root
# of the sources.

# The scripts find programs below target/, and system tools also without root's PATH.
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf '%s: %s\n' "$(basename "$0")" "$*"; }

# skipped NAME REASON reports a part of a test that does not run here. tests/run
# counts and lists these lines, which it collects in the file $HEARTH_SKIPS.
skipped() {
	local line="skipped: $1: ${2//$'\n'/ }"
	printf '%s\n' "$line"
	[ -z "${HEARTH_SKIPS:-}" ] || printf '%s\n' "$line" >>"$HEARTH_SKIPS"
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# continue_as_root SCRIPT ARGUMENT... ends this process with SCRIPT, run by sudo with
# this user's tools and settings. As root it does nothing. What needs no root is done
# before, so that root leaves no files among this user's.
continue_as_root() {
	[ "$(id -u)" != 0 ] || return 0
	command -v sudo >/dev/null || { say "root is needed, and there is no sudo"; return 1; }
	local name settings=(HEARTH_PREPARED=yes)
	for name in PATH HOME CARGO_HOME RUSTUP_HOME HEARTH HEARTH_SKIPS APK JSHN VERBOSE; do
		[ -z "${!name:-}" ] || settings+=("$name=${!name}")
	done
	say "continuing as root"
	sudo env "${settings[@]}" "$@"
	exit
}

# alone COMMAND... runs COMMAND while no other script of this directory installs
# anything: apt, rustup and pip are not made to run twice at once.
alone() {
	mkdir -p target
	{
		flock 9
		"$@" 9>&-
	} 9>target/.installing
}

# need_package PACKAGE COMMAND WHY installs a Debian package unless the command is
# there.
need_package() {
	command -v "$2" >/dev/null && return 0
	alone install_package "$@"
	command -v "$2" >/dev/null
}

# install_package PACKAGE COMMAND WHY: COMMAND may be empty.
install_package() {
	# Another script may have been faster.
	if [ -n "$2" ] && command -v "$2" >/dev/null; then return 0; fi
	have_apt "$1" "$3" || return 1
	say "installing the package $1: $3"
	apt_install "$1"
}

have_apt() {
	command -v apt-get >/dev/null || { say "$1 is missing ($2), and there is no apt-get to install it"; return 1; }
	# Once an hour at most, for all scripts.
	if [ -z "$(find target/.apt-updated -mmin -60 2>/dev/null)" ] && as_root apt-get update -qq; then
		touch target/.apt-updated
	fi
	return 0
}

# A fresh machine may be installing its own updates: apt waits for these.
apt_install() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		-o DPkg::Lock::Timeout=600 "$@" >/dev/null
}

# fetch_package PACKAGE PROGRAM WHY unpacks a Debian package below target/tools and puts
# its program first in PATH. Nothing is installed, so no service of the package is
# started or enabled, and no other package gives way.
fetch_package() {
	[ -x "target/tools/bin/$2" ] || alone unpack_package "$@" || return 1
	export PATH="$PWD/target/tools/bin:$PATH"
}

unpack_package() {
	local directory=$PWD/target/tools/$1 program libraries
	[ ! -x "target/tools/bin/$2" ] || return 0
	have_apt "$1" "$3" || return 1
	say "fetching the package $1 into target/tools, without installing it: $3"
	rm -rf "$directory" && mkdir -p "$directory" target/tools/bin || return 1
	(cd "$directory" && apt-get download -qq -o "APT::Sandbox::User=$(id -un)" "$1") &&
		dpkg-deb -x "$directory"/*.deb "$directory" || return 1
	program=$(find "$directory" -type f -path '*bin/*' -name "$2" -perm -u+x | head -1)
	[ -n "$program" ] || { say "the package $1 has no program $2"; return 1; }
	if ldd "$program" 2>/dev/null | grep -q 'not found'; then
		mapfile -t libraries < <(dpkg-deb -f "$directory"/*.deb Depends | tr ',' '\n' | sed -n 's/^ *\(lib[^ ]*\).*/\1/p')
		say "installing the libraries of $2: ${libraries[*]}"
		apt_install "${libraries[@]}" || return 1
	fi
	ln -sf "$program" "target/tools/bin/$2"
}

# A root file system without libraries has a static busybox, as a router has.
need_busybox() {
	is_static "$(command -v busybox)" && return 0
	fetch_package busybox-static busybox "the scripts run in its shell, as on a router"
}

is_static() { [ -n "$1" ] && LC_ALL=C ldd "$1" 2>&1 | grep -qE 'not a dynamic executable|statically linked'; }

# The toolchain is pinned in rust-toolchain.toml, and rustup installs it.
need_rust() {
	export PATH="$PATH:$HOME/.cargo/bin"
	if ! command -v rustup >/dev/null; then
		need_package rustup rustup "it installs the Rust toolchain that rust-toolchain.toml names" || exit 1
	fi
	if ! rustc --version >/dev/null 2>&1; then
		say "installing the Rust toolchain that rust-toolchain.toml names"
		alone rustup toolchain install || exit 1
	fi
	need_component rustfmt "it checks the formatting" && need_component clippy "it finds faults" || exit 1
}

need_component() {
	rustup component list --installed | grep -q "^$1" && return 0
	say "installing the Rust component $1: $2"
	alone rustup component add "$1"
}

need_compiler() { need_package build-essential cc "ring has a part in C"; }

need_cargo_deny() {
	cargo deny --version >/dev/null 2>&1 && return 0
	say "installing cargo-deny from crates.io: it checks licences, sources and banned packages"
	cargo install --locked --quiet cargo-deny
}

# cargo_test ARGUMENT... is `cargo test`; ignored tests are reported as skipped.
cargo_test() {
	local output status name reason
	output=$(mktemp) || return 1
	cargo test "$@" 2>&1 | tee "$output"
	status=${PIPESTATUS[0]}
	while IFS=$'\t' read -r name reason; do
		skipped "$name" "${reason:-ignored}"
	done < <(sed -n 's/^test \(.*\) \.\.\. ignored\(, \)\{0,1\}\(.*\)$/\1\t\3/p' "$output")
	rm -f "$output"
	return "$status"
}

# The official client needs a Go of the version in tests/interop/go.mod.
need_go() {
	local wanted have
	wanted=$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' tests/interop/go.mod)
	export PATH="$PATH:/usr/local/go/bin"
	need_package golang-go go "the official client is written in Go" || return 1
	need_package python3 python3 "it reads the results of the tests in Go" || return 1
	need_package iproute2 ip "the tests run in a network namespace of their own" || return 1
	have=$(go env GOVERSION | sed 's/^go//')
	if [ "$(printf '%s\n' "$wanted" "$have" | sort -V | head -1)" != "$wanted" ]; then
		# The Go command fetches newer toolchains from the module proxy by itself.
		say "Go $have is older than $wanted: letting it fetch that as a module"
		export GOTOOLCHAIN=auto
		(cd tests/interop && go version) || return 1
	fi
}

# As an installed service miniupnpd would open ports of this machine at each boot.
need_upstream_router() {
	need_package nftables nft "an upstream router forwards ports in a test" || return 1
	command -v miniupnpd >/dev/null ||
		fetch_package miniupnpd-nftables miniupnpd "it is the upstream router in a test"
}

# The cross-builds link with zig, which PyPI carries, in an environment of its own.
need_zigbuild() {
	local environment=target/zigbuild
	if [ ! -x "$environment/bin/cargo-zigbuild" ]; then
		need_package python3 python3 "it installs zig" || return 1
		alone make_zigbuild "$environment" || return 1
	fi
	PATH="$PWD/$environment/bin:$PATH"
	export PATH
}

make_zigbuild() {
	[ ! -x "$1/bin/cargo-zigbuild" ] || return 0
	say "installing ziglang 0.17.1 and cargo-zigbuild 0.24.0 from PyPI: C compiler and linker for the other processors"
	make_environment "$1" && "$1/bin/pip" install --quiet ziglang==0.17.1 cargo-zigbuild==0.24.0
}

# make_environment DIRECTORY makes a Python environment. To be called by `alone`.
make_environment() {
	python3 -m venv "$1" >/dev/null 2>&1 && return 0
	install_package python3-venv "" "it makes Python environments" && python3 -m venv "$1"
}

need_rust_src() { need_component rust-src "there is no ready-made standard library for MIPS"; }

need_emulator() { need_package qemu-user-static "$1" "it runs the cross-built program"; }
