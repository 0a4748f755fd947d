# bash: completion for postactl(8).

_postactl_ids() {
    postactl queue --json 2>/dev/null | grep -o '"id":"[0-9A-Z]*"' | cut -d'"' -f4
}

_postactl() {
    local words="check settings queue show cat hold release delete bounce retry why metrics log cdb passwd
        pause resume when session audit set-permissions"
    local current=${COMP_WORDS[COMP_CWORD]} word= n
    for ((n = 1; n < COMP_CWORD; n++)); do
        case ${COMP_WORDS[n]} in
        -c) ((n++)) ;;
        -*) ;;
        *) word=${COMP_WORDS[n]}; break ;;
        esac
    done
    local offered=
    case $word in
    '')
        if [ "${COMP_WORDS[COMP_CWORD-1]}" = -c ]; then
            COMPREPLY=($(compgen -f -- "$current"))
            return
        fi
        offered="-c -V -h $words"
        ;;
    queue) offered="--json --totals --state --sender --recipient --domain --older --younger" ;;
    why) offered="--json --from --client" ;;
    when) offered="--json" ;;
    audit) offered="--since" ;;
    metrics) offered="--file" ;;
    log) offered="error warn info debug" ;;
    passwd) offered="--scheme" ;;
    show|cat|hold|release|delete|bounce) offered=$(_postactl_ids) ;;
    retry) offered="all $(_postactl_ids)" ;;
    cdb)
        COMPREPLY=($(compgen -f -- "$current"))
        return
        ;;
    esac
    COMPREPLY=($(compgen -W "$offered" -- "$current"))
}

complete -F _postactl postactl
