# shellcheck shell=dash disable=SC3043,SC1091
# Stands in for OpenWrt's procd.sh in the tests: writes down what procd would be told, one call in a line of
# /tmp/procd, each word in brackets.

. /usr/share/libubox/jshn.sh

_procd_say() {
	local word line=''
	for word in "$@"; do line="${line}[$word]"; done
	printf '%s\n' "$line" >>/tmp/procd
}

procd_open_instance() { _procd_say instance "$@"; }
procd_close_instance() { _procd_say end; }
procd_set_param() { _procd_say "$@"; }
procd_append_param() { _procd_say "$@"; }
procd_add_jail() { _procd_say jail "$@"; }
procd_add_jail_mount() { _procd_say mount "$@"; }
procd_add_jail_mount_rw() { _procd_say mount-rw "$@"; }
procd_add_reload_trigger() { _procd_say trigger "$@"; }
procd_add_reload_interface_trigger() { _procd_say trigger-interface "$@"; }
procd_add_reload_mount_trigger() { _procd_say trigger-mount "$@"; }
procd_set_config_changed() { _procd_say changed "$@"; }
procd_open_data() { json_init; }
procd_close_data() { _procd_say data "$(json_dump)"; }

# The mount points of /etc/config/fstab that lead to a path.
procd_get_mountpoints() {
	local point
	[ -f /etc/fstab-points ] || return 0
	while read -r point; do
		case "$1/" in
		"$point"/*) printf '%s\n' "$point" ;;
		esac
	done </etc/fstab-points
}
