# Building in release, quietly and only when something changed. Sourced after common.sh, never run.
# shellcheck shell=bash

# Everything that decides what `swift build` makes. Sources/Firmware is not SwiftPM's, and building it again for
# nothing would cost more than looking. Package.resolved is an output: the build itself writes it.
swift_inputs() {
    local -n inputs=$1
    local folder
    inputs=("$ROOT/Package.swift")
    for folder in "$ROOT"/Sources/*; do
        if [[ ${folder##*/} != Firmware ]]; then inputs+=("$folder"); fi
    done
}

# run_build STAMP INPUTS-ARRAY WHAT ARGUMENT…: `swift build -c release ARGUMENT…` unless STAMP says it was done.
# On a terminal one line tells how far it is; a failure shows everything.
run_build() {
    local stamp=$1 what=$3 log new status=0
    local -n build_inputs=$2
    shift 3
    newer_than "$stamp" "${build_inputs[@]}" || return 0
    mkdir -p "$ROOT/.build"
    log=$(mktemp "$ROOT/.build/.log.XXXXXX")
    # The stamp gets the time of the start: an edit made while this ran is built next time.
    new=$(mktemp "$stamp.XXXXXX")
    say "building $what (swift build -c release; the first time takes minutes)"
    if [[ -t 2 ]]; then
        swift build --package-path "$ROOT" -c release "$@" 2>&1 </dev/null | tee "$log" | progress || status=1
    else
        swift build --package-path "$ROOT" -c release "$@" >"$log" 2>&1 </dev/null || status=1
    fi
    if ((status != 0)); then
        # Without the lines that only tell how far it is, unless there are no others.
        grep -v '^\[[0-9]*/[0-9]*\] ' "$log" >&2 || cat "$log" >&2
    fi
    rm -f "$log"
    if ((status != 0)); then
        rm -f "$new"
        fail "the build failed"
    fi
    mv "$new" "$stamp"
}

# Every executable, without tests.
build_executables() {
    # shellcheck disable=SC2034
    local -a executable_inputs
    swift_inputs executable_inputs
    run_build "$ROOT/.build/.built" executable_inputs "Baseboard"
}

# Every executable and test; what `build_executables` makes is part of it.
build_tests() {
    local -a test_inputs
    swift_inputs test_inputs
    # Tests compile some of the firmware's sources too.
    test_inputs+=("$ROOT/Tests" "$ROOT/Sources/Firmware")
    run_build "$ROOT/.build/.tests-built" test_inputs "Baseboard and its tests" --build-tests
    if [[ $ROOT/.build/.tests-built -nt $ROOT/.build/.built ]]; then
        cp -p "$ROOT/.build/.tests-built" "$ROOT/.build/.built"
    fi
}

# Shows the last line of what it reads in place, cut to the terminal.
progress() {
    local line columns
    columns=$(tput cols 2>/dev/null || echo 80)
    while IFS= read -r line; do
        printf '\r\033[K%s' "${line:0:columns-1}" >&2
    done
    printf '\r\033[K' >&2
}
