#!/bin/sh
# Runs a command where the packages unpacked in ROOT are installed, in namespaces of its own for mounts,
# processes and the host's name. What it writes to /usr, /etc, /var and /run is gone afterwards, and
# nobody else sees it: Debian's mail servers exclude each other, and the system may have one.
#
# Usage: enter.sh ROOT WORK COMMAND…   (started by unshare; needs root)
# LINK=yes puts mailweir at /usr/sbin/sendmail. CONFIG, if set, becomes /etc/mailweir/config.toml.
set -eu
root=$1
work=$2
shift 2
layers=$work/layers
mkdir -p "$layers"
mount -t tmpfs -o mode=755 none "$layers"
for part in usr etc var; do
    mkdir -p "$layers/$part" "$layers/$part.work" "$root/$part"
    mount -t overlay none -o "lowerdir=$root/$part:/$part,upperdir=$layers/$part,workdir=$layers/$part.work" "/$part"
done
mount -t tmpfs -o mode=755 none /run
# Devices of its own, so that a program may have its /dev/log.
mount -t tmpfs -o mode=755 none /dev
for device in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
    # Name, major and minor number.
    numbers=${device#* }
    mknod -m 666 "/dev/${device%% *}" c ${numbers% *} ${numbers#* }
done
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
mkdir -m 1777 /dev/shm
hostname client.test
echo client.test >/etc/mailname
echo client.test >/etc/hostname
printf '127.0.0.1 localhost client.test client\n' >/etc/hosts
# Nobody answers there: no case may depend on the DNS, or ask anybody outside.
echo 'nameserver 127.0.0.1' >/etc/resolv.conf
if [ "${LINK:-}" = yes ]; then
    for name in sbin/sendmail lib/sendmail bin/mailq bin/newaliases; do
        ln -sf "$MAILWEIR" "/usr/$name"
    done
fi
if [ -n "${CONFIG:-}" ]; then
    mkdir -p /etc/mailweir
    cp "$CONFIG" /etc/mailweir/config.toml
    chmod 644 /etc/mailweir/config.toml
fi
exec "$@"
