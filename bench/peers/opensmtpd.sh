# OpenSMTPD. Its limits on connections are raised to what the measurement asks for, and the pauses
# between connections are off; else one connection would carry everything.
. "$(dirname "$0")/lib.sh"
[ -e "$PEERS/opensmtpd/complete" ] || missing "not fetched: bench/peers/fetch"
need_root
if [ "${1:-}" = about ]; then
    echo "OpenSMTPD $(cd "$PEERS/packages" && ls opensmtpd_* | sed 's/opensmtpd_\([^-]*\).*/\1/'); written, not synced before the 250"
    exit
fi
enter_namespace "$PEERS/opensmtpd" opensmtpd opensmtpq
mkdir -p "$DIRECTORY/var/spool/smtpd" "$DIRECTORY/var/lib/opensmtpd/empty" "$DIRECTORY/spool"
chmod 711 "$DIRECTORY/spool"
echo opensmtpd.example >"$DIRECTORY/etc/mailname"
{
    for scope in host route source connector relay domain; do
        echo "mta limit max-conn-per-$scope $CONNECTIONS"
    done
    for scope in host source connector route relay domain; do
        echo "mta limit conn-delay-$scope 0"
    done
    echo "mta limit reconn-delay-route 0"
    echo "mta limit session-mail-max 10000"
    echo "mta limit task-hiwat 10000"
    echo "mta limit task-lowat 5000"
    echo "mta limit task-release 5000"
    echo "smtp limit max-mails 100000"
    echo "listen on 127.0.0.1 port $PORT hostname opensmtpd.example"
    echo "action \"out\" relay host smtp://127.0.0.1:$SINK_PORT"
    echo "match from any for any action \"out\""
} >"$DIRECTORY/etc/smtpd.conf"
lay_over
mount --bind "$DIRECTORY/spool" /var/spool/smtpd
exec /usr/sbin/smtpd -d -f /etc/smtpd.conf
