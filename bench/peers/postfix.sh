# Postfix, as installed: an instance of its own with its own configuration and queue. Defaults but
# for what the measurement asks for; connections are kept as long as there is mail for them.
. "$(dirname "$0")/lib.sh"
postfix=$(command -v postfix || ls /usr/sbin/postfix 2>/dev/null) || missing "not installed"
need_root
if [ "${1:-}" = about ]; then
    echo "Postfix $(postconf -dh mail_version); fsync of the queue file before the 250"
    exit
fi
mkdir -p "$DIRECTORY/etc" "$DIRECTORY/queue" "$DIRECTORY/data"
chmod 755 "$DIRECTORY"
chown postfix "$DIRECTORY/data"
cat >"$DIRECTORY/etc/main.cf" <<END
compatibility_level = 3.6
queue_directory = $DIRECTORY/queue
data_directory = $DIRECTORY/data
command_directory = $(postconf -dh command_directory)
daemon_directory = $(postconf -dh daemon_directory)
mail_owner = postfix
setgid_group = postdrop
maillog_file = $DIRECTORY/maillog
maillog_file_prefixes = $DIRECTORY
myhostname = postfix.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
relayhost = [127.0.0.1]:$SINK_PORT
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
smtp_tls_security_level = none
smtp_connection_cache_on_demand = yes
smtp_destination_concurrency_limit = $CONNECTIONS
initial_destination_concurrency = $(((CONNECTIONS + 1) / 2))
END
cat >"$DIRECTORY/etc/master.cf" <<END
127.0.0.1:$PORT inet n - n - - smtpd
pickup     unix n - n 60   1 pickup
cleanup    unix n - n -    0 cleanup
qmgr       unix n - n 300  1 qmgr
rewrite    unix - - n -    - trivial-rewrite
bounce     unix - - n -    0 bounce
defer      unix - - n -    0 bounce
trace      unix - - n -    0 bounce
verify     unix - - n -    1 verify
flush      unix n - n 1000? 0 flush
proxymap   unix - - n -    - proxymap
smtp       unix - - n -    $CONNECTIONS smtp
relay      unix - - n -    $CONNECTIONS smtp
showq      unix n - n -    - showq
error      unix - - n -    - error
retry      unix - - n -    - error
discard    unix - - n -    - discard
anvil      unix - - n -    1 anvil
scache     unix - - n -    1 scache
postlog    unix-dgram n - n - 1 postlogd
END
exec "$postfix" -c "$DIRECTORY/etc" start-fg
