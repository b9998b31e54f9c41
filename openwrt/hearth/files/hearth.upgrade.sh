# shellcheck shell=dash disable=SC2034,SC3043
# Sourced by sysupgrade. Its archive of settings contains hearth's database, which hearth might be writing to. hearth
# is therefore stopped (SIGSTOP) for some seconds while the archive is made: the copy is consistent, as after a power
# cut, and the database recovers from that.

HEARTH_HALT_SECONDS=20

hearth_halt() {
	local processes
	processes=$(pidof hearth) || return 0
	# shellcheck disable=SC2086
	kill -STOP $processes 2>/dev/null || return 0
	# shellcheck disable=SC2086
	(sleep "$HEARTH_HALT_SECONDS"; kill -CONT $processes) >/dev/null 2>&1 </dev/null &
	return 0
}

[ -z "$sysupgrade_init_conffiles" ] || sysupgrade_init_conffiles="$sysupgrade_init_conffiles hearth_halt"
