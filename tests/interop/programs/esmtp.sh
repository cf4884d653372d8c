#!/bin/sh
# esmtp in the place of sendmail; it has no queue.
printf 'hostname=%s:%s\n' "$HOST" "$PORT" >"$WORK/esmtprc"
exec esmtp -C "$WORK/esmtprc" -f "$FROM" "$TO" "$ALSO" "$COPY" "$BLIND" <"$MESSAGE"
