#!/bin/sh
# Run by the tests of the OpenWrt feed on each architecture. Arguments: package, version.
set -e

[ "$1" = hearth ] || exit 0

hearth --version | grep -F "$2"

directory=$(mktemp -d)
hearth serve --data-dir "$directory" --http 127.0.0.1:18080 --https off --stun off >"$directory/log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -rf "$directory"' EXIT

# If the event loop delivers no events, this times out instead of hanging.
tries=0
until timeout 20 hearth --socket "$directory/hearth.sock" health; do
	tries=$((tries + 1))
	if [ "$tries" -ge 30 ]; then
		cat "$directory/log"
		exit 1
	fi
	sleep 1
done
