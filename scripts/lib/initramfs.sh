# A cpio archive for a kernel, member by member, on standard output: the same bytes for the same members. Sourced, never run.
# shellcheck shell=bash

# newc NAME MODE [FILE]: one member of a cpio archive, with FILE's content, owned by root, without times.
# Spec: Linux Documentation/driver-api/early-userspace/buffer-format.rst
member=0
newc() {
    local name=$1 mode=$2 file=${3:-/dev/null} size
    size=$(stat -Lc %s "$file")
    member=$((member + 1))
    # Magic, inode, mode, uid, gid, links, time, size, device (two), special device (two), length of the name, sum.
    printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X' \
        "$member" "$mode" 0 0 1 0 "$size" 0 0 0 0 "$((${#name} + 1))" 0
    printf '%s\0' "$name"
    head -c "$(((4 - (110 + ${#name} + 1) % 4) % 4))" /dev/zero
    cat "$file"
    head -c "$(((4 - size % 4) % 4))" /dev/zero
}

# newc_link NAME TARGET: a symbolic link.
newc_link() {
    local file
    file=$(mktemp)
    printf '%s' "$2" >"$file"
    newc "$1" 0120777 "$file"
    rm -f "$file"
}

# The archive's end.
newc_end() { newc 'TRAILER!!!' 0; }
