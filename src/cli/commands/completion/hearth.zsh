#compdef hearth
# zsh completion for hearth.
_hearth() {
    local line
    local -a candidates
    for line in ${(f)"$(${words[1]} __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)"}; do
        candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    if (( $#candidates )); then
        _describe hearth candidates
    else
        _files
    fi
}
if [[ ${funcstack[1]} == _hearth ]]; then
    _hearth "$@"
else
    compdef _hearth hearth
fi
