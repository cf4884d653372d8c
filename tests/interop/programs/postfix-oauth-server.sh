#!/bin/sh
# Postfix that takes mail only from who logs in with a token; Dovecot's auth asks the endpoint that gave it out.
set -e
for user in dovecot dovenull postfix; do
    getent passwd $user >/dev/null || useradd --system --user-group $user
done
mkdir -p "$WORK/postfix/spool/private" "$WORK/dovecot"
chown postfix "$WORK/postfix/spool/private"
chmod 700 "$WORK/postfix/spool/private"
chmod 644 "$KEY" "$TOKENS_KEY"

python3 tokens.py &

cat >"$WORK/oauth2.conf" <<END
introspection_mode = post
introspection_url = http://$INTROSPECTION/introspect
username_attribute = username
active_attribute = active
active_value = true
END
cat >"$WORK/dovecot.conf" <<END
protocols =
base_dir = /run/dovecot
log_path = $WORK/dovecot/log
ssl = no
disable_plaintext_auth = no
auth_mechanisms = xoauth2 oauthbearer
auth_failure_delay = 0
passdb {
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = $WORK/oauth2.conf
}
userdb {
  driver = static
  args = uid=dovecot gid=dovecot home=$WORK/dovecot
}
service auth {
  unix_listener $WORK/postfix/spool/private/auth {
    mode = 0660
    user = postfix
    group = postfix
  }
}
END
dovecot -c "$WORK/dovecot.conf"

PERMIT='permit_sasl_authenticated, reject'
SETTINGS='smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_sasl_security_options = noanonymous
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_error_sleep_time = 0'
. ./postfix-maildirs.sh
