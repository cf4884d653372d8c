#!/bin/sh
# curl uploads a message as it is.
shift $#
scheme=smtp
case ${TLS:-} in
starttls) set -- --ssl-reqd --cacert "$CA" ;;
implicit) scheme=smtps && set -- --cacert "$CA" ;;
esac
[ -n "${LOGIN:-}" ] && set -- "$@" --user "$LOGIN:$PASSWORD"
exec curl --silent --show-error --crlf --url "$scheme://$HOST:$PORT/client.test" --mail-from "$FROM" \
    --mail-rcpt "$TO" --mail-rcpt "$ALSO" --mail-rcpt "$COPY" --mail-rcpt "$BLIND" --upload-file "$MESSAGE" "$@"
