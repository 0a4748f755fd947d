#compdef postactl
# zsh: completion for postactl(8).

_postactl_ids() {
    local -a ids
    ids=(${(f)"$(postactl queue --json 2>/dev/null | grep -o '"id":"[0-9A-Z]*"' | cut -d'"' -f4)"})
    compadd -a ids
}

_postactl() {
    local -a orders
    orders=(
        'check:check the configuration'
        'settings:print the settings and their defaults'
        'queue:list the queue'
        'show:print what is known of a message'
        'cat:print a message'
        'hold:leave messages alone until released'
        'release:end a hold'
        'delete:remove messages without a word to anybody'
        'bounce:give messages up and tell their senders'
        'retry:try now what waits'
        'pause:try nothing for a domain until it is resumed'
        'resume:end a pause, and try now what waits'
        'when:say what waits for what, and until when'
        'why:say where an address leads, and why'
        'session:print what was said last in a session that went wrong'
        'audit:see whether every message taken has an end, or is queued'
        'metrics:print counters, for Prometheus'
        'log:say how much the programs log, until a reload'
        'cdb:make FILE.cdb of the text file of a table'
        'passwd:set a password in the users file of a domain'
        'set-permissions:make the folders of the spool, or set their rights'
    )
    local state
    _arguments '-c[read the configuration from FILE]:file:_files' '-V[print the version]' \
        '-h[print this help]' '1:word:->word' '*::argument:->argument'
    case $state in
    word) _describe word orders ;;
    argument)
        case $words[1] in
        queue) compadd -- --json --totals --state --sender --recipient --domain --older --younger ;;
        why) compadd -- --json --from --client ;;
        when) compadd -- --json ;;
        audit) compadd -- --since ;;
        metrics) compadd -- --file ;;
        log) compadd error warn info debug ;;
        passwd) compadd -- --scheme ;;
        show|cat|hold|release|delete|bounce|retry) _postactl_ids ;;
        cdb) _files ;;
        esac
        ;;
    esac
}

_postactl "$@"
