# shellcheck shell=bash
# Functions that the scripts in packaging/ share: where the static programs come from.
# To be sourced, with tests/lib.sh, from the root of the sources.

# What runs a program of another processor.
runner_of() {
	case "$1" in
	aarch64) echo qemu-aarch64-static ;;
	armv6 | armv7) echo qemu-arm-static ;;
	x86_64) echo env ;;
	esac
}

# need_program PROCESSOR makes sure that target/packages/bin/PROCESSOR/hearth is there with
# everything in it: on these machines there is room, unlike on routers, whose programs
# tests/cross puts at the same place.
need_program() {
	local program=target/packages/bin/$1/hearth
	need_emulator qemu-arm-static || return 1
	if [ -x "$program" ] && ! "$(runner_of "$1")" "$program" version | grep -q 'built without'; then
		return 0
	fi
	tests/cross --build-only --profile release "$1" || return 1
	! "$(runner_of "$1")" "$program" version | grep -q 'built without'
}
