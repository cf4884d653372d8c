#!/bin/sh
# s-nail, over SMTP or (first word) by sendmail.
case $1 in
smtp)
    scheme=smtp
    login='-S smtp-auth=none -S smtp-config=-all'
    if [ -n "${LOGIN:-}" ]; then
        login="-S smtp-auth=plain -S tls-ca-file=$CA -S tls-verify=ignore"
        [ "$TLS" = implicit ] && scheme=smtps
        [ "$TLS" = starttls ] && login="$login -S smtp-use-starttls"
        scheme="$scheme://$LOGIN:$PASSWORD@"
    else
        scheme="$scheme://"
    fi
    # shellcheck disable=SC2086
    set -- -S "mta=$scheme$HOST:$PORT" -S smtp-hostname=client.test $login
    ;;
*) set -- -S mta=/usr/sbin/sendmail ;;
esac
exec s-nail -n -S v15-compat=yes -S sendwait -S ttycharset=utf-8 -S hostname=client.test -S "from=$FROM_NAME <$FROM>" \
    -S sendcharsets=utf-8 "$@" -s "$SUBJECT" -c "$COPY" -b "$BLIND" -a "$ATTACHMENT" "$TO" "$ALSO" <"$TEXT"
