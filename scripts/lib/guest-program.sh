# Compiles the programs of scripts/guest, which need no C library. Sourced after common.sh, never run.
# shellcheck shell=bash

# The folder of Swift's own clang: it makes code for every architecture of ours, and setup has installed it.
toolchain() {
    local swiftc target
    swiftc=$(command -v swiftc) || fail "swiftc is not in PATH; install Swift 6.3 from https://www.swift.org/install"
    target=$("$swiftc" -print-target-info | sed -n 's/.*"runtimeResourcePath": "\(.*\)\/lib\/swift".*/\1\/bin/p')
    [[ -x $target/ld.lld ]] || fail "$swiftc names no toolchain with ld.lld (looked in '$target')"
    printf '%s\n' "$target"
}

# guest_program ARCHITECTURE NAME FILE: scripts/guest/NAME.c as a program for riscv64's or x86_64's Linux, in FILE.
guest_program() {
    local -a machine=()
    if [[ $1 == riscv64 ]]; then machine=(-march=rv64gc -mabi=lp64d); fi
    "$(toolchain)/clang" "--target=$1-unknown-linux-gnu" "${machine[@]}" -O2 -ffreestanding \
        -fno-builtin -nostdlib -static -fuse-ld=lld -Wl,-s "$ROOT/scripts/guest/$2.c" -o "$3"
}
