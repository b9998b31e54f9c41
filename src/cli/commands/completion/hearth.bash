# bash completion for hearth.
_hearth() {
    local line=${COMP_LINE:0:COMP_POINT} word candidate
    local -a words
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[-1]}
    # Bash takes a colon for the end of a word: it must not come back with the completion.
    local begun=""
    [[ $word == *:* && $COMP_WORDBREAKS == *:* ]] && begun=${word%"${word##*:}"}
    COMPREPLY=()
    while IFS= read -r candidate; do
        candidate=${candidate%%$'\t'*}
        [[ -n $candidate ]] && COMPREPLY+=("${candidate#"$begun"}")
    done < <("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
}
complete -o default -F _hearth hearth
