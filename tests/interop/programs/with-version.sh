#!/bin/sh
# Prints "NAME VERSION" for a Debian package, installed or only unpacked, whose program does not tell.
# Usage: with-version.sh PACKAGE NAME
version=$(sed -n "s/^Package: $1 Version: //p" /usr/.versions 2>/dev/null | tail -1)
[ -n "$version" ] || version=$(dpkg-query -W -f '${Version}' "$1")
echo "$2 $version"
