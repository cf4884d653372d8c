#!/bin/sh
# bsd-mailx, Debian's mail(1), by sendmail.
exec bsd-mailx -n -s "$SUBJECT" -c "$COPY" -b "$BLIND" -a 'Content-Type: text/plain; charset=utf-8' \
    -a 'MIME-Version: 1.0' -r "$FROM" "$TO" "$ALSO" <"$TEXT"
