#!/bin/sh
# cron mails what a job prints to MAILTO.
mkdir -p /var/spool/cron/crontabs
rm -rf /etc/cron.d /etc/crontab /var/spool/cron/crontabs/*
printf 'MAILTO=%s,%s,%s,%s\nCONTENT_TYPE="text/plain; charset=utf-8"\n@reboot cat %s\n' \
    "$TO" "$ALSO" "$COPY" "$BLIND" "$TEXT" >/var/spool/cron/crontabs/root
chmod 600 /var/spool/cron/crontabs/root
exec cron -f -L 15
