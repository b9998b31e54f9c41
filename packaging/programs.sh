# shellcheck shell=bash
# Shared functions of the scripts in packaging/: the static programs. Source it together
# with tests/lib.sh from the root of the repository.

# Emulator for programs of another processor.
runner_of() {
	case "$1" in
	aarch64) echo qemu-aarch64-static ;;
	armv6 | armv7) echo qemu-arm-static ;;
	x86_64) echo env ;;
	esac
}

# need_program PROCESSOR makes sure that target/packages/bin/PROCESSOR/hearth exists with all
# features. tests/cross builds the smaller programs for routers in the same place.
need_program() {
	local program=target/packages/bin/$1/hearth
	[ "$(runner_of "$1")" = env ] || need_emulator qemu-arm-static || return 1
	if [ -x "$program" ] && ! "$(runner_of "$1")" "$program" version | grep -q 'built without'; then
		return 0
	fi
	tests/cross --build-only --profile release "$1" || return 1
	! "$(runner_of "$1")" "$program" version | grep -q 'built without'
}
