#!/bin/sh
# mutt and neomutt (first word), over SMTP or (second word) by sendmail.
program=$1
way=$2
: >"$WORK/muttrc"
set -- -n -F "$WORK/muttrc" -e 'set charset=utf-8' -e 'set send_charset=utf-8' -e 'set copy=no' \
    -e "set realname='$FROM_NAME'" -e "set from=$FROM" -e 'set use_envelope_from=yes' -e 'set ssl_starttls=no' -e 'set ssl_force_tls=no'
[ "$way" = sendmail ] || set -- "$@" -e "set smtp_url=smtp://$HOST:$PORT"
exec "$program" "$@" -s "$SUBJECT" -c "$COPY" -b "$BLIND" -a "$ATTACHMENT" -- "$TO" "$ALSO" <"$TEXT"
