# shellcheck shell=dash disable=SC3043,SC1090
# Stands in for OpenWrt's /lib/functions.sh in the tests: as much of it as hearth's scripts use. A file of UCI is
# words of the shell here too.

reset_cb() {
	config_cb() { :; }
	option_cb() { :; }
	list_cb() { :; }
}
reset_cb

config() {
	_sections=$((${_sections:-0} + 1))
	_section="${2:-cfg$_sections}"
	_all="$_all $_section"
	eval "CONFIG_${_section}_TYPE=\$1"
	config_cb "$1" "$_section"
}

option() {
	eval "CONFIG_${_section}_$1=\$2"
	option_cb "$1" "$2"
}

list() {
	eval "_length=\${CONFIG_${_section}_$1_LENGTH:-0}"
	_length=$((_length + 1))
	eval "CONFIG_${_section}_$1_LENGTH=$_length
		CONFIG_${_section}_$1_ITEM$_length=\$2
		CONFIG_${_section}_$1=\"\${CONFIG_${_section}_$1:+\$CONFIG_${_section}_$1 }\$2\""
	list_cb "$1" "$2"
	# As some releases of OpenWrt do.
	option_cb "$1_ITEM$_length" "$2"
	option_cb "$1_LENGTH" "$_length"
}

config_load() {
	local section name
	for section in $_all; do
		for name in $(set | sed -n "s/^\(CONFIG_${section}_[A-Za-z0-9_]*\)=.*/\1/p"); do unset "$name"; done
	done
	_all='' _section='' _sections=0
	[ ! -f "/etc/config/$1" ] || . "/etc/config/$1"
	config_cb
}

config_get() {
	eval "$1=\${CONFIG_$2_$3:-\$4}"
}

config_set() {
	eval "CONFIG_$1_$2=\$3"
}

config_get_bool() {
	config_get "$1" "$2" "$3" "$4"
	eval "case \"\$$1\" in
		1 | on | true | yes | enabled) $1=1 ;;
		0 | off | false | no | disabled) $1=0 ;;
		*) $1=$4 ;;
		esac"
}

config_list_foreach() {
	local _list_section="$1" _list_option="$2" _list_function="$3" _list_length _list_item _list_number=0
	shift 3
	config_get _list_length "$_list_section" "${_list_option}_LENGTH" 0
	while [ "$_list_number" -lt "$_list_length" ]; do
		_list_number=$((_list_number + 1))
		config_get _list_item "$_list_section" "${_list_option}_ITEM$_list_number"
		"$_list_function" "$_list_item" "$@"
	done
}
