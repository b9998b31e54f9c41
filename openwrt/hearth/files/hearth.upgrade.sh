# shellcheck shell=dash disable=SC2034,SC3043
# Sourced by sysupgrade. Its archive of settings has hearth's database in it, which hearth might be writing to while
# it is read. So hearth is halted from just before until some seconds later: what is in the archive is then the
# state of one moment, like that after a power cut, and the database recovers from that by itself.

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
