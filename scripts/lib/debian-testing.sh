# Packages of Debian's testing suite (riscv64), fetched and unpacked without touching the machine's own apt.
# Sourced, never run.
#
# apt works here with a sources list, state and cache of its own, as whoever calls it: no root, and no line of
# /etc/apt/sources.list changes. Signatures are checked against debian-archive-keyring, as apt always does.
# shellcheck shell=bash

debian_testing_root="$CACHE/debian-testing"
debian_testing_mirror="${BASEBOARD_DEBIAN_MIRROR:-http://deb.debian.org/debian}"
debian_testing_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# apt's own options for every command; one index (riscv64) holds the `all` packages too.
debian_testing_apt() {
    local program=$1 root=$debian_testing_root
    shift
    "$program" -qq \
        -o Dir::Etc::sourcelist="$root/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o Dir::State="$root/state" -o Dir::State::status="$root/state/status" -o Dir::Cache="$root/cache" \
        -o APT::Architecture=riscv64 -o APT::Architectures::=riscv64 -o APT::Sandbox::User=root \
        -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

# debian_testing_package PACKAGE: prints the folder with PACKAGE unpacked, fetching it on the first call; its files
# .version and .depends hold those fields. A second call costs one look at the disk; BASEBOARD_REFRESH=1 asks the mirror
# for a newer version.
debian_testing_package() {
    local package=$1 root=$debian_testing_root work version deb
    local -a debs
    local current="$root/packages/$package"
    if [[ -e $current/.depends && -z ${BASEBOARD_REFRESH:-} ]]; then
        printf '%s\n' "$current"
        return
    fi
    [[ -r $debian_testing_keyring ]] || fail "$debian_testing_keyring is missing; run ./scripts/setup"
    mkdir -p "$root"/{state/lists/partial,cache/archives/partial,packages,versions}
    (
        # Two clones may ask at once: the second one waits, then finds the work done.
        flock 9
        if [[ -e $current/.depends && -z ${BASEBOARD_REFRESH:-} ]]; then exit 0; fi
        : >>"$root/state/status"
        printf 'deb [signed-by=%s] %s testing main\n' "$debian_testing_keyring" "$debian_testing_mirror" \
            >"$root/sources.list"
        say "fetching $package of Debian testing from $debian_testing_mirror"
        quietly debian_testing_apt apt-get update -o APT::Update::Error-Mode=any \
            || fail "could not read Debian testing's index; is $debian_testing_mirror reachable?"
        work=$(mktemp -d "$root/versions/.new.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        (cd "$work" && quietly debian_testing_apt apt-get download "$package") \
            || fail "could not download $package of Debian testing"
        debs=("$work"/*.deb)
        deb=${debs[0]}
        [[ $(dpkg-deb -f "$deb" Package) == "$package" ]] || fail "asked for $package, got $deb"
        version=$(dpkg-deb -f "$deb" Version)
        mkdir "$work/tree"
        dpkg-deb -x "$deb" "$work/tree"
        printf '%s\n' "$version" >"$work/tree/.version"
        dpkg-deb -f "$deb" Depends >"$work/tree/.depends"
        if [[ ! -e $root/versions/${package}_$version/.depends ]]; then
            rm -rf "$root/versions/${package}_$version"
            mv "$work/tree" "$root/versions/${package}_$version"
        fi
        # The link appears whole or not at all: nobody sees half an unpacked package.
        ln -sfn "../versions/${package}_$version" "$work/link"
        mv -T "$work/link" "$current"
        say "$package $version is in $root"
    ) 9>"$root/.lock"
    printf '%s\n' "$current"
}

# debian_testing_dependency PACKAGE PREFIX: the first package that PACKAGE depends on whose name begins with PREFIX.
debian_testing_dependency() {
    local folder name
    folder=$(debian_testing_package "$1")
    name=$(sed 's/([^)]*)//g; s/[,|]/ /g' "$folder/.depends" | tr -s ' ' '\n' | grep -m1 -- "^$2" || true)
    [[ -n $name ]] || fail "Debian testing's $1 $(<"$folder/.version") depends on no package $2*"
    printf '%s\n' "$name"
}
