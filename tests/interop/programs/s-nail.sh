#!/bin/sh
# s-nail, over SMTP or (first word) by sendmail.
case $1 in
smtp) set -- -S "mta=smtp://$HOST:$PORT" -S smtp-hostname=client.test -S smtp-auth=none -S smtp-config=-all ;;
*) set -- -S mta=/usr/sbin/sendmail ;;
esac
exec s-nail -n -S v15-compat=yes -S sendwait -S ttycharset=utf-8 -S hostname=client.test -S "from=$FROM_NAME <$FROM>" \
    -S sendcharsets=utf-8 "$@" -s "$SUBJECT" -c "$COPY" -b "$BLIND" -a "$ATTACHMENT" "$TO" "$ALSO" <"$TEXT"
