# Packages of Debian's testing suite, fetched and unpacked without touching the machine's own apt. Sourced, never run.
#
# apt works here with a sources list, state and cache of its own, as whoever calls it: no root, and no line of
# /etc/apt/sources.list changes. Signatures are checked against debian-archive-keyring, as apt always does. Each
# architecture has a folder of its own; riscv64, the boards' own, is meant where none is named.
# shellcheck shell=bash

# debian_testing_use ARCHITECTURE: what the functions below work on from here on.
debian_testing_use() {
    debian_testing_architecture=$1
    debian_testing_root="$CACHE/debian-testing"
    if [[ $1 != riscv64 ]]; then debian_testing_root+="-$1"; fi
}
debian_testing_use riscv64
debian_testing_mirror="${BASEBOARD_DEBIAN_MIRROR:-http://deb.debian.org/debian}"
debian_testing_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# apt's own options for every command; one architecture's index holds the `all` packages too.
debian_testing_apt() {
    local program=$1 root=$debian_testing_root
    shift
    "$program" -qq \
        -o Dir::Etc::sourcelist="$root/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o Dir::State="$root/state" -o Dir::State::status="$root/state/status" -o Dir::Cache="$root/cache" \
        -o APT::Architecture="$debian_testing_architecture" -o APT::Architectures::="$debian_testing_architecture" \
        -o APT::Sandbox::User=root \
        -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

# The folders that everything below works in.
debian_testing_prepare() {
    [[ -r $debian_testing_keyring ]] || fail "$debian_testing_keyring is missing; run ./scripts/setup"
    mkdir -p "$debian_testing_root"/{state/lists/partial,cache/archives/partial,packages,versions,trees}
}

# Asks the mirror what there is. Only with the lock held.
debian_testing_update() {
    # No package counts as installed: what a package depends on is fetched with it, whatever this machine has.
    : >>"$debian_testing_root/state/status"
    printf 'deb [signed-by=%s] %s testing main\n' "$debian_testing_keyring" "$debian_testing_mirror" \
        >"$debian_testing_root/sources.list"
    quietly debian_testing_apt apt-get update -o APT::Update::Error-Mode=any \
        || fail "could not read Debian testing's index; is $debian_testing_mirror reachable?"
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
    debian_testing_prepare
    (
        # Two clones may ask at once: the second one waits, then finds the work done.
        flock 9
        if [[ -e $current/.depends && -z ${BASEBOARD_REFRESH:-} ]]; then exit 0; fi
        say "fetching $package of Debian testing from $debian_testing_mirror"
        debian_testing_update
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

# debian_testing_tree NAME PACKAGE…: prints a folder with the packages and everything that they depend on unpacked into
# each other, C library and loader too: programs in it run by that loader. Its file .versions names what is in it. Fetched
# on the first call, or when other packages are asked for by that NAME; BASEBOARD_REFRESH=1 asks for newer versions.
debian_testing_tree() {
    local name=$1 root=$debian_testing_root current work versions
    shift
    current="$root/trees/$name"
    debian_testing_prepare
    (
        flock 9
        if [[ -z ${BASEBOARD_REFRESH:-} && -e $current/.wanted && $(<"$current/.wanted") == "$*" ]]; then exit 0; fi
        say "fetching $* of Debian testing ($debian_testing_architecture) with all that they need"
        debian_testing_update
        rm -f "$root"/cache/archives/*.deb
        quietly debian_testing_apt apt-get install --yes --download-only --no-install-recommends "$@" \
            || fail "could not download $* of Debian testing"
        versions=$(cd "$root/cache/archives" && printf '%s\n' *.deb)
        if [[ -e $current/.versions && $(<"$current/.versions") == "$versions" ]]; then
            printf '%s\n' "$*" >"$current/.wanted"
            rm -f "$root"/cache/archives/*.deb
            exit 0
        fi
        work=$(mktemp -d "$root/trees/.new.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        for deb in "$root"/cache/archives/*.deb; do dpkg-deb -x "$deb" "$work"; done
        rm -f "$root"/cache/archives/*.deb
        printf '%s\n' "$versions" >"$work/.versions"
        printf '%s\n' "$*" >"$work/.wanted"
        chmod 0755 "$work"
        rm -rf "$current"
        mv -T "$work" "$current"
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
