#!/bin/sh
# Dovecot's submission service: STARTTLS, a login (by the mechanism that is named), and a relay behind it.
set -e
for user in dovecot dovenull; do
    getent passwd $user >/dev/null || useradd --system --user-group $user
done
getent passwd keeper >/dev/null || useradd --system --user-group keeper
mkdir -p "$WORK/dovecot"
chmod 644 "$KEY"
echo 'app:{PLAIN}a password' >"$WORK/users"
cat >"$WORK/dovecot.conf" <<END
protocols = submission
base_dir = /run/dovecot
log_path = $WORK/dovecot/log
hostname = server.test
ssl = yes
ssl_cert = <$CERTIFICATE
ssl_key = <$KEY
auth_mechanisms = ${1:-plain login}
mail_location = maildir:$WORK/dovecot/mail
submission_relay_host = $SINK_HOST
submission_relay_port = $SINK_PORT
submission_relay_trusted = no
recipient_delimiter = +
passdb {
  driver = passwd-file
  args = $WORK/users
}
userdb {
  driver = static
  args = uid=keeper gid=keeper home=$WORK/dovecot
}
service submission-login {
  inet_listener submission {
    address = $HOST
    port = $PORT
  }
}
END
chown -R keeper "$WORK/dovecot"
exec dovecot -F -c "$WORK/dovecot.conf"
