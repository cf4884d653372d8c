# Postfix that keeps mail for a domain in Maildirs, for the scripts that read this. $PERMIT: whose mail it takes in the
# end; $SETTINGS: further lines of main.cf.
getent passwd postfix >/dev/null || useradd --system --user-group postfix
getent group postdrop >/dev/null || groupadd --system postdrop
mkdir -p "$WORK/postfix/data" "$WORK/postfix/spool"
chown postfix "$WORK/postfix/data"
chmod 755 "$WORK/postfix" "$WORK/postfix/spool"
printf 'refused@example.test 550 5.1.1 no such mailbox here\n' >"$WORK/recipients"
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
smtpd_recipient_restrictions = check_recipient_access texthash:$WORK/recipients, $PERMIT
smtpd_tls_cert_file = $CERTIFICATE
smtpd_tls_key_file = $KEY
$SETTINGS
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
