#!/bin/sh
# Postfix with a relayhost.
set -e
getent passwd postfix >/dev/null || useradd --system postfix
getent group postdrop >/dev/null || groupadd --system postdrop
mkdir -p "$WORK/postfix/data" "$WORK/postfix/spool"
chown postfix "$WORK/postfix/data"
chmod 755 "$WORK/postfix" "$WORK/postfix/spool"
cat >/etc/postfix/main.cf <<END
compatibility_level = 3.6
queue_directory = $WORK/postfix/spool
data_directory = $WORK/postfix/data
maillog_file = $WORK/postfix/maillog
maillog_file_prefixes = $WORK
myhostname = client.test
mydestination =
relayhost = [$HOST]:$PORT
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtp_tls_security_level = none
smtp_dns_support_level = disabled
alias_maps =
alias_database =
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
smtp_destination_concurrency_failed_cohort_limit = 0
END
cat >/etc/postfix/master.cf <<END
pickup unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
smtp unix - - n - - smtp
showq unix n - n - - showq
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
END
touch "$WORK/postfix/maillog"
tail -F "$WORK/postfix/maillog" | while read -r line; do
    echo "$line"
    case $line in *status=deferred*) touch "$WORK/tried" ;; esac
done &
postfix start
/usr/sbin/sendmail -i -t -f "$FROM" <"$MESSAGE"
wait
