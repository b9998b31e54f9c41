# Functions that the scripts in tests/ share: each makes sure that one tool is
# there, and says what it installs and why. To be sourced, not run.

say() { printf '%s: %s\n' "$(basename "$0")" "$*"; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

apt_updated=no

# need_package PACKAGE COMMAND WHY installs a Debian package unless the command is
# there.
need_package() {
	command -v "$2" >/dev/null && return 0
	command -v apt-get >/dev/null || { say "there is no $2 ($3) and no apt-get to install $1"; return 1; }
	say "installing the package $1: $3"
	if [ "$apt_updated" = no ]; then as_root apt-get update -qq && apt_updated=yes; fi
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >/dev/null &&
		command -v "$2" >/dev/null
}

# The toolchain is pinned in rust-toolchain.toml, and rustup installs it.
need_rust() {
	export PATH="$PATH:$HOME/.cargo/bin"
	if ! command -v rustup >/dev/null; then
		need_package rustup rustup "it installs the Rust toolchain that rust-toolchain.toml names" || exit 1
	fi
	if ! rustc --version >/dev/null 2>&1; then
		say "installing the Rust toolchain that rust-toolchain.toml names"
		rustup toolchain install || exit 1
	fi
	local component
	for component in rustfmt clippy; do
		if ! rustup component list --installed | grep -q "^$component"; then
			say "installing the Rust component $component"
			rustup component add "$component" || exit 1
		fi
	done
}

need_compiler() { need_package build-essential cc "ring has a part in C"; }

need_cargo_deny() {
	cargo deny --version >/dev/null 2>&1 && return 0
	say "installing cargo-deny from crates.io: it checks licences, sources and banned packages"
	cargo install --locked --quiet cargo-deny
}

# The official client needs a Go of the version in tests/interop/go.mod.
need_go() {
	local wanted have
	wanted=$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' tests/interop/go.mod)
	export PATH="$PATH:/usr/local/go/bin"
	need_package golang-go go "the official client is written in Go" || return 1
	need_package iproute2 ip "the tests run in a network namespace of their own"
	need_package nftables nft "the router in front forwards ports in a test" &&
		need_package miniupnpd-nftables miniupnpd "it is the router in front in a test"
	have=$(go env GOVERSION | sed 's/^go//')
	if [ "$(printf '%s\n' "$wanted" "$have" | sort -V | head -1)" != "$wanted" ]; then
		# The Go command fetches newer toolchains from the module proxy by itself.
		say "Go $have is older than $wanted: letting it fetch that as a module"
		export GOTOOLCHAIN=auto
		(cd tests/interop && go version) || return 1
	fi
}

# The cross-builds link with zig, which PyPI carries, in an environment of its own.
need_zigbuild() {
	local environment=target/zigbuild
	if [ ! -x "$environment/bin/cargo-zigbuild" ]; then
		command -v python3 >/dev/null || need_package python3 python3 "it installs zig" || return 1
		say "installing ziglang 0.17.1 and cargo-zigbuild 0.24.0 from PyPI: C compiler and linker for the other processors"
		python3 -m venv "$environment" 2>/dev/null || {
			need_package python3-venv pyvenv-is-no-command "it makes the environment for zig"
			python3 -m venv "$environment" || return 1
		}
		"$environment/bin/pip" install --quiet ziglang==0.17.1 cargo-zigbuild==0.24.0 || return 1
	fi
	PATH="$PWD/$environment/bin:$PATH"
	export PATH
}

need_rust_src() {
	rustup component list --installed | grep -q '^rust-src' && return 0
	say "installing the Rust component rust-src: there is no ready-made standard library for MIPS"
	rustup component add rust-src
}

need_emulator() { need_package qemu-user-static "$1" "it runs the cross-built program"; }
