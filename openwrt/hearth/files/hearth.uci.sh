# shellcheck shell=dash disable=SC3043
# Turns /etc/config/hearth into hearth's own configuration as JSON. To be sourced after /lib/functions.sh.
#
# All values are escaped by jshn; none is inserted into text by hand. Unknown options are passed on unchanged, so that
# hearth reports them.

# Sections of hearth.toml, each a named section of /etc/config/hearth.
HEARTH_SECTIONS="listen tls prefixes node routes dns derp wan policy clients backup metrics log limits"
# Options of the section `server` that are for this package and not for hearth.
HEARTH_OWN_OPTIONS=" enabled open_wan config_file data_dir "
# jshn reads values from its environment: at most 128 KiB each and 2 MiB in total. hearth reads at most 256 KiB.
HEARTH_VALUE_BYTES=16384
HEARTH_TOTAL_BYTES=131072
# A number of more digits does not fit 64 bits.
HEARTH_DIGITS=18

hearth_log() {
	logger -t hearth -p "daemon.$1" -- "$2"
}

# hearth_load reads /etc/config/hearth and records the options of each section: functions.sh can only look up options
# by name.
hearth_load() {
	local section
	for section in server $HEARTH_SECTIONS; do
		unset "hearth_options_$section"
	done
	hearth_records='' hearth_splits='' hearth_rules='' hearth_section=''
	# shellcheck disable=SC2317
	config_cb() { hearth_on_section "$1" "$2"; }
	# shellcheck disable=SC2317
	option_cb() { hearth_on_option "$1"; }
	# shellcheck disable=SC2317
	list_cb() { hearth_on_option "$1"; }
	config_load hearth
	reset_cb
}

hearth_on_section() {
	local name
	hearth_section=''
	# At the end of the file functions.sh calls this with nothing.
	[ -n "$1" ] || return 0
	case "$2" in
	*[!A-Za-z0-9_]* | '') return 0 ;;
	esac
	case "$1" in
	dns_record) hearth_records="$hearth_records $2" ;;
	dns_split) hearth_splits="$hearth_splits $2" ;;
	dns_rule) hearth_rules="$hearth_rules $2" ;;
	member) return 0 ;;
	*)
		for name in server $HEARTH_SECTIONS; do
			[ "$2" = "$name" ] || continue
			hearth_section="$2"
			return 0
		done
		hearth_log warn "/etc/config/hearth: unknown section '$2' (ignored)"
		return 0
		;;
	esac
	hearth_section="$2"
	unset "hearth_options_$2"
}

hearth_on_option() {
	local known
	[ -n "$hearth_section" ] || return 0
	case "$1" in
	*[!A-Za-z0-9_]* | '') return 0 ;;
	# Internal variables of functions.sh for lists, which some releases report as options.
	*_LENGTH | *_ITEM[0-9]*) return 0 ;;
	esac
	eval "known=\" \$hearth_options_$hearth_section \""
	case "$known" in
	*" $1 "*) return 0 ;;
	esac
	eval "hearth_options_$hearth_section=\"\$hearth_options_$hearth_section $1\""
}

# hearth_type KEY sets `hearth_kind` to the type of the key in hearth.toml.
hearth_type() {
	case "$1" in
	node.approval | dns.magic_dns | dns.override_local_dns | dns.use_router | dns.use_with_exit_node | \
		derp.enabled | derp.stun_only | derp.admit_fail_open | derp.stun_lan_as_wan | wan.port_mapping | \
		rule.override_local_dns | rule.use_router | rule.use_with_exit_node)
		hearth_kind=boolean
		;;
	listen.trusted_proxies | dns.nameservers | dns.search_domains | dns.wildcard | derp.admit_keys | \
		derp.mesh_with | derp.map_files | derp.map_urls | clients.addresses | wan.stun_servers | wan.on_change | \
		backup.command | backup.recipients | \
		rule.target | rule.nameservers | rule.search_domains)
		hearth_kind=list
		;;
	derp.region_id | derp.port | derp.stun_port | backup.keep | limits.*)
		hearth_kind=integer
		;;
	derp.region_score)
		hearth_kind=fraction
		;;
	*)
		hearth_kind=text
		;;
	esac
}

# hearth_fits VALUE KEY checks the size limits before another value is added.
hearth_fits() {
	if [ "${#1}" -gt "$HEARTH_VALUE_BYTES" ]; then
		hearth_log err "/etc/config/hearth: '$2' is longer than $HEARTH_VALUE_BYTES characters (ignored)"
		return 1
	fi
	hearth_bytes=$((hearth_bytes + ${#1} + ${#2}))
	[ "$hearth_bytes" -le "$HEARTH_TOTAL_BYTES" ] && return 0
	hearth_log err "/etc/config/hearth: all values together are longer than $HEARTH_TOTAL_BYTES characters ('$2' is ignored): use a file and set 'config_file'"
	return 1
}

# hearth_item VALUE KEY adds one value to the list that is open.
hearth_item() {
	hearth_fits "$1" "$2" && json_add_string '' "$1"
}

# hearth_add SECTION OPTION KEY NAME adds an option under NAME.
hearth_add() {
	local section="$1" option="$2" key="$3" name="$4" value items
	config_get items "$section" "${option}_LENGTH" ''
	config_get value "$section" "$option" ''
	hearth_type "$key"
	if [ "$hearth_kind" = list ] || [ -n "$items" ]; then
		json_add_array "$name"
		if [ "$value" = none ]; then
			:
		elif [ -n "$items" ]; then
			config_list_foreach "$section" "$option" hearth_item "$key"
		elif [ -n "$value" ]; then
			hearth_item "$value" "$key"
		fi
		json_close_array
		return 0
	fi
	[ -n "$value" ] || return 0
	hearth_fits "$value" "$key" || return 0
	case "$hearth_kind" in
	boolean)
		case "$value" in
		1 | on | true | yes | enabled) json_add_boolean "$name" 1 ;;
		0 | off | false | no | disabled) json_add_boolean "$name" 0 ;;
		*) json_add_string "$name" "$value" ;;
		esac
		;;
	integer)
		case "$value" in
		*[!0-9]*) json_add_string "$name" "$value" ;;
		*)
			if [ "${#value}" -le "$HEARTH_DIGITS" ]; then
				json_add_int "$name" "$value"
			else
				json_add_string "$name" "$value"
			fi
			;;
		esac
		;;
	fraction)
		case "$value" in
		*[!0-9.]* | *.*.* | .) json_add_string "$name" "$value" ;;
		*) json_add_double "$name" "$value" ;;
		esac
		;;
	*)
		json_add_string "$name" "$value"
		;;
	esac
}

# hearth_add_all SECTION PREFIX adds every option of a section but the one that `hearth_left_out` names.
hearth_add_all() {
	local options option
	eval "options=\$hearth_options_$1"
	for option in $options; do
		case "$1$HEARTH_OWN_OPTIONS" in
		server*" $option "*) continue ;;
		esac
		[ "$1.$option" != "${hearth_left_out:-}" ] || continue
		hearth_add "$1" "$option" "$2$option" "$option"
	done
}

# The domain of a split is a key of a table, and jshn replaces all characters but letters and digits in keys, so that
# two domains can collide.
hearth_add_splits() {
	local section domain plain seen=' '
	json_add_object split
	for section in $hearth_splits; do
		config_get domain "$section" domain ''
		[ -n "$domain" ] || continue
		hearth_fits "$domain" dns_split.domain || continue
		plain=$(printf %s "$domain" | tr -c 'A-Za-z0-9_' _)
		case "$seen" in
		*" $plain "*)
			hearth_log err "/etc/config/hearth: duplicate dns_split for '$domain', or one that differs only in '.' and '-' (ignored): use a file for both and set 'config_file'"
			continue
			;;
		esac
		seen="$seen$plain "
		hearth_add "$section" nameservers dns.nameservers "$domain"
	done
	json_close_object
}

hearth_add_tables() {
	local section
	json_add_array "$1"
	for section in $2; do
		json_add_object ''
		hearth_add_all "$section" "$3"
		json_close_object
	done
	json_close_array
}

# hearth_json prints the configuration. Call `hearth_load` first.
hearth_json() {
	local section options
	hearth_bytes=0
	json_init
	hearth_add_all server ''
	for section in $HEARTH_SECTIONS; do
		eval "options=\$hearth_options_$section"
		[ "$section" != dns ] || options="$options$hearth_records$hearth_splits$hearth_rules"
		[ -n "$options" ] || continue
		json_add_object "$section"
		hearth_add_all "$section" "$section."
		if [ "$section" = dns ]; then
			[ -z "$hearth_splits" ] || hearth_add_splits
			[ -z "$hearth_records" ] || hearth_add_tables records "$hearth_records" record.
			[ -z "$hearth_rules" ] || hearth_add_tables rules "$hearth_rules" rule.
		fi
		json_close_object
	done
	json_dump
	json_cleanup
}

# hearth_port LISTEN prints the port of a listen address without leading zeros, nothing for `off`.
hearth_port() {
	local port="${1##*:}"
	while :; do
		case "$port" in
		0?*) port="${port#0}" ;;
		*) break ;;
		esac
	done
	case "$port" in
	'' | *[!0-9]*) ;;
	*) [ "${#port}" -le 5 ] && printf %s "$port" ;;
	esac
}

# hearth_host LISTEN prints the host of a listen address, without brackets; nothing for all addresses.
hearth_host() {
	local host=''
	case "$1" in
	*:*) host="${1%:*}" ;;
	esac
	host="${host#[}"
	host="${host%]}"
	case "$host" in
	'' | :: | 0.0.0.0) ;;
	*) printf %s "$host" ;;
	esac
}
