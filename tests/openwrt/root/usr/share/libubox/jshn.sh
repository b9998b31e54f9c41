# shellcheck shell=dash disable=SC3043
# Stands in for OpenWrt's jshn in the tests. Writes the JSON as it comes, and like the real one keeps the names of an
# object apart by their letters and digits only: of two that differ in nothing else it refuses the second.

_json_text() {
	printf '%s' "$1" | awk 'BEGIN { RS = "\001" }
	{
		out = ""
		n = length($0)
		for (i = 1; i <= n; i++) {
			c = substr($0, i, 1)
			if (c == "\"" || c == "\\" || c == "/") out = out "\\" c
			else if (c == "\n") out = out "\\n"
			else if (c == "\t") out = out "\\t"
			else if (c == "\r") out = out "\\r"
			else if (c < " ") out = out "\\u001b"
			else out = out c
		}
		printf "%s", out
	}'
}

_json_member() {
	local inside="${_json_stack%% *}" plain
	_json_out="$_json_out$_json_comma"
	_json_comma=,
	[ "$inside" != array ] || return 0
	plain=$(printf %s "$1" | tr -c 'A-Za-z0-9_' _)
	case "$_json_names" in
	*" $_json_depth/$plain "*) echo "jshn: two names that look like $plain" >&2; return 1 ;;
	esac
	_json_names="$_json_names $_json_depth/$plain "
	_json_out="$_json_out\"$(_json_text "$1")\":"
}

_json_open() {
	_json_member "$2" || return 1
	_json_depth="$_json_depth.$((_json_serial += 1))"
	_json_stack="$1 $_json_stack"
	_json_comma=''
	_json_out="$_json_out$3"
}

_json_shut() {
	_json_stack="${_json_stack#* }"
	_json_depth="${_json_depth%.*}"
	_json_comma=,
	_json_out="$_json_out$1"
}

json_init() { _json_out='{' _json_stack='object ' _json_comma='' _json_names='' _json_depth=0 _json_serial=0; }
json_cleanup() { json_init; }
json_add_object() { _json_open object "$1" '{'; }
json_close_object() { _json_shut '}'; }
json_add_array() { _json_open array "$1" '['; }
json_close_array() { _json_shut ']'; }
json_add_string() { _json_member "$1" && _json_out="$_json_out\"$(_json_text "$2")\""; }
json_add_int() { _json_member "$1" && _json_out="$_json_out$2"; }
json_add_double() { _json_member "$1" && _json_out="$_json_out$2"; }
json_add_boolean() {
	_json_member "$1" || return 1
	if [ "$2" = 0 ]; then _json_out="${_json_out}false"; else _json_out="${_json_out}true"; fi
}
json_dump() { printf '%s}\n' "$_json_out"; }
