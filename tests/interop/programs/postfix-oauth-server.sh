#!/bin/sh
# Postfix that takes mail only from who logs in with a token; Dovecot's auth asks the endpoint that gave it out.
set -e
for user in dovecot dovenull postfix; do
    getent passwd $user >/dev/null || useradd --system --user-group $user
done
getent group postdrop >/dev/null || groupadd --system postdrop
mkdir -p "$WORK/postfix/data" "$WORK/postfix/spool/private" "$WORK/dovecot"
chown postfix "$WORK/postfix/data" "$WORK/postfix/spool/private"
chmod 755 "$WORK/postfix" "$WORK/postfix/spool"
chmod 700 "$WORK/postfix/spool/private"
chmod 644 "$KEY" "$TOKENS_KEY"
printf 'refused@example.test 550 5.1.1 no such mailbox here\n' >"$WORK/recipients"

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

cat >/etc/postfix/main.cf <<END
compatibility_level = 3.6
queue_directory = $WORK/postfix/spool
data_directory = $WORK/postfix/data
maillog_file = $WORK/postfix/maillog
maillog_file_prefixes = $WORK
myhostname = server.test
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_sasl_security_options = noanonymous
smtpd_recipient_restrictions = check_recipient_access texthash:$WORK/recipients, permit_sasl_authenticated, reject
smtpd_tls_cert_file = $CERTIFICATE
smtpd_tls_key_file = $KEY
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_error_sleep_time = 0
virtual_mailbox_domains = example.test
virtual_mailbox_base = $MAIL
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
alias_maps =
alias_database =
END
cat >/etc/postfix/master.cf <<END
$HOST:$PORT inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
END
exec postfix start-fg
