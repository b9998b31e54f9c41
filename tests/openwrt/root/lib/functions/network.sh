# shellcheck shell=dash disable=SC3043,SC2034
# Stands in for OpenWrt's network.sh in the tests: what netifd knows is in /etc/netifd, one interface in a line:
# its name, its IPv4 subnets and its IPv6 prefixes, each joined by commas, or '-'.

_network() {
	local name v4 v6 found=''
	while read -r name v4 v6; do
		[ "$name" != "$2" ] || eval "found=\$$3"
	done </etc/netifd
	[ "$found" != - ] || found=''
	found=$(printf %s "$found" | tr , ' ')
	eval "$1=\$found"
	[ -n "$found" ]
}

network_get_subnets() { _network "$1" "$2" v4; }
network_get_prefix_assignments6() { _network "$1" "$2" v6; }
