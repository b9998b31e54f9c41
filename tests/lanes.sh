# shellcheck shell=bash
# Runs steps side by side in two lanes, and counts them. To be sourced.
#
# A lane runs one step at a time, in the order in which they were added: `build` has
# those that keep the processors busy, `test` those that mostly wait. Steps of `any` go
# to a lane that has none of its own to run. What a step prints is shown whole when it
# ends; the parts that it skips are the lines of its $HEARTH_SKIPS (see `skipped` in
# lib.sh), and one that exits with 77 was skipped as a whole.

step_names=() step_lanes=() step_commands=() step_needs=() step_states=() step_notes=() step_began=() step_pids=()
passed=0 failed=0 skipped=0
declare -A lane_step=()

# step LANE NAME COMMAND... adds a step: a command or a function.
step() {
	local lane=$1 name=$2; shift 2
	step_lanes+=("$lane") step_names+=("$name") step_needs+=("") step_states+=(waiting) step_notes+=("")
	step_commands+=("$(printf '%q ' "$@")")
}

# needs NAME: the step that was added last waits for this one, and is skipped if that
# does not succeed.
needs() {
	local i
	for i in "${!step_names[@]}"; do
		if [ "${step_names[i]}" = "$1" ]; then step_needs[-1]+=" $i"; return; fi
	done
	echo "there is no step '$1' that '${step_names[-1]}' could need" >&2
	exit 2
}

# skip NAME REASON adds a step that does not run.
skip() {
	step none "$1" false
	skip_step "$((${#step_names[@]} - 1))" "$2"
}

skip_step() {
	step_states[$1]=skipped step_notes[$1]="skipped ${step_names[$1]}: $2"$'\n'
	skipped=$((skipped + 1))
}

# run_steps runs them all. A failed step does not end the run: the next ones may tell
# more.
run_steps() {
	local lane i
	lanes_directory=$(mktemp -d) && mkfifo "$lanes_directory/ended" || exit 1
	trap 'stop_steps' EXIT
	trap 'exit 130' INT TERM HUP
	exec {lanes_ended}<>"$lanes_directory/ended"
	while :; do
		for lane in build test; do
			while [ -z "${lane_step[$lane]:-}" ] && next_step "$lane"; do start_step "$lane" "$next"; done
		done
		[ ${#lane_step[@]} -gt 0 ] || break
		read -r -u "$lanes_ended" i status && end_step "$i" "$status"
	done
	for i in "${!step_names[@]}"; do
		[ "${step_states[i]}" != waiting ] || skip_step "$i" "it needs itself"
	done
}

stop_steps() {
	local lane
	for lane in "${!lane_step[@]}"; do
		echo "stopping: ${step_names[${lane_step[$lane]}]}"
		kill -TERM -- "-${step_pids[${lane_step[$lane]}]}" 2>/dev/null
	done
	rm -rf "$lanes_directory"
}

# next_step LANE puts the number of the first step that this lane can run now into
# `next`.
next_step() {
	local wanted i
	skip_hopeless
	for wanted in "$1" any; do
		for i in "${!step_names[@]}"; do
			if [ "${step_lanes[i]}" = "$wanted" ] && [ "${step_states[i]}" = waiting ] && is_ready "$i"; then
				next=$i
				return 0
			fi
		done
	done
	return 1
}

is_ready() {
	local need
	for need in ${step_needs[$1]}; do
		[ "${step_states[need]}" = passed ] || return 1
	done
}

# Steps come after those that they need, so one pass finds all.
skip_hopeless() {
	local i need
	for i in "${!step_names[@]}"; do
		for need in ${step_needs[i]}; do
			[ "${step_states[i]}" = waiting ] || break
			case "${step_states[need]}" in
			failed) skip_step "$i" "it needs '${step_names[need]}', which failed" ;;
			skipped) skip_step "$i" "it needs '${step_names[need]}', which was skipped" ;;
			esac
		done
	done
}

start_step() {
	local lane=$1 i=$2
	lane_step[$lane]=$i step_states[i]=running step_began[i]=$SECONDS
	printf 'started: %s\n' "${step_names[i]}"
	# Job control gives the step a process group of its own, by which it can be stopped.
	set -m
	(
		export HEARTH_SKIPS=$lanes_directory/$i.skips
		(eval "${step_commands[i]}") {lanes_ended}>&- </dev/null >"$lanes_directory/$i.output" 2>&1
		echo "$i $?" >&"$lanes_ended"
	) &
	step_pids[i]=$!
	disown
	set +m
}

end_step() {
	local i=$1 status=$2 took=$((SECONDS - step_began[$1])) lane line note=""
	for lane in "${!lane_step[@]}"; do
		[ "${lane_step[$lane]}" != "$i" ] || unset "lane_step[$lane]"
	done
	printf '\n=== %s\n' "${step_names[i]}"
	cat "$lanes_directory/$i.output"
	case "$status" in
	0) step_states[i]=passed passed=$((passed + 1)) note="ok      ${step_names[i]} ($took s)"$'\n' ;;
	77) step_states[i]=skipped ;;
	*) step_states[i]=failed failed=$((failed + 1)) note="FAILED  ${step_names[i]} ($took s)"$'\n' ;;
	esac
	while read -r line; do
		skipped=$((skipped + 1)) note+="skipped ${step_names[i]}: ${line#skipped: }"$'\n'
	done < <(sort -u "$lanes_directory/$i.skips" 2>/dev/null)
	if [ "$status" = 77 ] && [ -z "$note" ]; then
		skipped=$((skipped + 1)) note="skipped ${step_names[i]}"$'\n'
	fi
	step_notes[i]=$note
	printf '%s\n' "--- ${step_states[i]} after $took s"
}

# show_steps prints a line for each step and each part that was skipped, the time of
# all, and the sums. It fails when one of them did.
show_steps() {
	printf '\n'
	printf '%s' "${step_notes[@]}"
	echo "took $((SECONDS / 60)) min $((SECONDS % 60)) s"
	printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
	[ "$failed" -eq 0 ]
}
