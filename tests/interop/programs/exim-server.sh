#!/bin/sh
# Exim that keeps mail for a domain in Maildirs, with STARTTLS.
set -e
user=Debian-exim
getent passwd "$user" >/dev/null || useradd --system --user-group --home /var/spool/exim4 "$user"
mkdir -p /var/spool/exim4 "$WORK/exim"
chown "$user" /var/spool/exim4 "$WORK/exim"
chmod 644 "$KEY"
cat >/etc/exim4/exim4.conf <<END
primary_hostname = server.test
keep_environment =
log_file_path = $WORK/exim/%slog
local_interfaces = $HOST
daemon_smtp_ports = $PORT
tls_advertise_hosts = *
tls_certificate = $CERTIFICATE
tls_privatekey = $KEY
never_users =
acl_smtp_rcpt = rcpt
acl_smtp_data = data
begin acl
rcpt:
  deny local_parts = refused
       message = no such mailbox here
  accept domains = example.test
data:
  accept
begin routers
local:
  driver = accept
  transport = maildir
begin transports
maildir:
  driver = appendfile
  maildir_format
  directory = $MAIL/all
  user = nobody
  group = nogroup
  mode = 0666
begin retry
* * F,1h,1s
END
chmod 644 /etc/exim4/exim4.conf
exec exim4 -bdf -q1m
