# For the relays of this folder; read by each of them.
#
# bench/peers.rs runs `bash bench/peers/NAME.sh` with
#   DIRECTORY    an empty directory of the run: configuration, queue, log
#   PORT         where it is to take mail, on 127.0.0.1
#   SINK_PORT    where everything is to go, on 127.0.0.1
#   CONNECTIONS  how many connections may be open there
#   PEERS        what bench/peers/fetch made
# The script ends by exec of the relay in the foreground. With the argument `about` it prints one
# line instead, "version; when a message is durable", and fails, with the reason on standard
# error, if the relay is not there.
set -euo pipefail

missing() {
    echo "$*" >&2
    exit 69
}

need_root() {
    [ "$(id -u)" -eq 0 ] || missing "needs root"
}

# A relay unpacked from a Debian package expects its files at fixed places. What follows runs where
# they are there, in a mount namespace: PACKAGE lies over /usr, and the directories etc and var of
# this run over /etc and /var. Users of its own are added to its own passwd only. The machine does
# not see any of it, and it goes away with the process.
enter_namespace() { # PACKAGE USER...
    local package=$1 id=61001 user
    shift
    if [ "${ENTERED:-}" != yes ]; then
        ENTERED=yes exec unshare --mount --propagation private bash "$0"
    fi
    mkdir -p "$DIRECTORY/etc" "$DIRECTORY/var" "$DIRECTORY/work"
    cp /etc/passwd /etc/group "$DIRECTORY/etc/"
    for user; do
        echo "$user:x:$id:$id::/nonexistent:/usr/sbin/nologin" >>"$DIRECTORY/etc/passwd"
        echo "$user:x:$id:" >>"$DIRECTORY/etc/group"
        id=$((id + 1))
    done
    # Names are looked up in a file or not at all: no relay is to wait for a name server.
    printf 'passwd: files\ngroup: files\nhosts: files\n' >"$DIRECTORY/etc/nsswitch.conf"
    printf '127.0.0.1 localhost %s bench.example\n' "$(hostname)" >"$DIRECTORY/etc/hosts"
    PACKAGE=$package
}

lay_over() {
    mount -t overlay overlay -o "lowerdir=$PACKAGE/usr:/usr" /usr
    mount -t overlay overlay -o "lowerdir=$DIRECTORY/etc:/etc" /etc
    mount -t overlay overlay -o "lowerdir=$DIRECTORY/var:/var" /var
}
