# Shared by the scripts: where things are, and how they talk. Sourced, never run.
# shellcheck shell=bash disable=SC2034

# A failure inside $(…) is one of the caller.
shopt -s inherit_errexit

# The package's folder, whatever folder the caller stands in.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly ROOT
# One cache for all clones and boards of a user. Safe to delete: everything in it is fetched again.
readonly CACHE="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/baseboard"

# Progress goes to stderr, so that a script's stdout is what the user asked for.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

# Runs a command whose output matters only when it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if ((status != 0)); then cat "$log" >&2; fi
    rm -f "$log"
    return "$status"
}

# True when STAMP is missing, or anything under the given files and folders is newer than it.
# A deleted file counts too: its folder's time changes.
newer_than() {
    local stamp=$1
    shift
    [[ ! -e $stamp ]] || [[ -n $(find "$@" -newer "$stamp" -print -quit 2>&1) ]]
}
