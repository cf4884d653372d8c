#!/bin/sh
# swaks, as people use it in scripts: a message from a file, the envelope by hand.
shift $#
case ${TLS:-} in
starttls) set -- "$@" --tls ;;
implicit) set -- "$@" --tls-on-connect ;;
esac
[ -n "${LOGIN:-}" ] && set -- "$@" --auth LOGIN --auth-user "$LOGIN" --auth-password "$PASSWORD"
exec swaks --server "$HOST" --port "$PORT" --ehlo client.test --from "$FROM" --to "$TO,$ALSO,$COPY,$BLIND" \
    --data "@$MESSAGE" --hide-all "$@"
