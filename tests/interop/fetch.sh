#!/bin/sh
# Fetches what a case needs and the system lacks, into a directory of its own; installs nothing.
#
# Usage: fetch.sh DIRECTORY {deb|npm|pip} NAME…
set -eu
directory=$1
kind=$2
shift 2
done=$directory/.$kind
[ "$(cat "$done" 2>/dev/null)" != "$*" ] || exit 0
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
case $kind in
deb)
    # Download only: what the package manager would remove for it stays where it is.
    archives=$directory.archives
    mkdir -p "$archives/partial"
    get() {
        DEBIAN_FRONTEND=noninteractive apt-get install --download-only -y -q --no-install-recommends \
            -o Debug::NoLocking=1 -o "Dir::Cache::archives=$archives" -o APT::Sandbox::User=root "$@"
    }
    mkdir -p "$directory/usr"
    get "$@" || { apt-get update -q && get "$@"; }
    for package in "$archives"/*.deb; do
        [ -e "$package" ] || continue
        dpkg -x "$package" "$directory"
        dpkg-deb -f "$package" Package Version | paste -s -d ' ' >>"$directory/usr/.versions"
    done
    # As on a system whose /bin, /lib and /sbin are links into /usr.
    for part in bin lib lib32 lib64 sbin; do
        if [ -d "$directory/$part" ] && [ ! -L "$directory/$part" ]; then
            mkdir -p "$directory/usr/$part"
            cp -a "$directory/$part/." "$directory/usr/$part/"
            rm -rf "${directory:?}/$part"
        fi
    done
    rm -rf "$archives"
    ;;
npm)
    npm install --prefix "$directory" --no-audit --no-fund --no-save "$@"
    ;;
pip)
    python3 -m pip install -q --disable-pip-version-check --target "$directory/python" "$@"
    ;;
esac
echo "$*" >"$done"
