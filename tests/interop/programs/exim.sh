#!/bin/sh
# Exim with everything routed to one smart host.
set -e
user=Debian-exim
getent passwd "$user" >/dev/null || useradd --system --user-group --home /var/spool/exim4 "$user"
mkdir -p /var/spool/exim4 "$WORK/exim"
chown "$user" /var/spool/exim4 "$WORK/exim"
cat >/etc/exim4/exim4.conf <<END
primary_hostname = client.test
keep_environment =
log_file_path = $WORK/exim/%slog
local_interfaces = 127.0.0.1
trusted_users = root
untrusted_set_sender = *
never_users = root
queue_run_max = 1
begin routers
smart:
  driver = manualroute
  route_list = * $HOST::$PORT
  host_find_failed = defer
  self = send
  transport = smart
begin transports
smart:
  driver = smtp
  hosts_avoid_tls = *
  message_linelength_limit = 100000
begin retry
* * F,1h,1s
END
chmod 644 /etc/exim4/exim4.conf
touch "$WORK/exim/mainlog"
chown "$user" "$WORK/exim/mainlog"
tail -F "$WORK/exim/mainlog" &
exim4 -oi -odi -t -f "$FROM" <"$MESSAGE"
touch "$WORK/tried"
while :; do
    sleep 1
    exim4 -qff
done
