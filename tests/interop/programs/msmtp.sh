#!/bin/sh
# msmtp -t takes the recipients from the message.
shift $#
case ${TLS:-} in
starttls) set -- --tls=on --tls-starttls=on --tls-trust-file="$CA" ;;
implicit) set -- --tls=on --tls-starttls=off --tls-trust-file="$CA" ;;
esac
# "on" takes PLAIN in clear text only if it is named.
[ -n "${LOGIN:-}" ] && set -- "$@" --auth=plain --user="$LOGIN" --passwordeval="echo $PASSWORD"
exec msmtp --file=/dev/null --host="$HOST" --port="$PORT" --from="$FROM" "$@" -t <"$MESSAGE"
