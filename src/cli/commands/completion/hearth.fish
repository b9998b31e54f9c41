# fish completion for hearth.
function __hearth_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete -- $words[2..-1] 2>/dev/null
end
complete -c hearth -f -n 'count (__hearth_complete) >/dev/null' -a '(__hearth_complete)'
