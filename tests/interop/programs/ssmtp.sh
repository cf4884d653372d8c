#!/bin/sh
# ssmtp in the place of sendmail; it has no queue.
mkdir -p /etc/ssmtp
printf 'mailhub=%s:%s\nhostname=client.test\nFromLineOverride=YES\n' "$HOST" "$PORT" >/etc/ssmtp/ssmtp.conf
exec ssmtp -t -f"$FROM" <"$MESSAGE"
