# Exim that delivers each message as soon as it is taken, its default.
. "$(dirname "$0")/lib.sh"
[ -e "$PEERS/exim/complete" ] || missing "not fetched: bench/peers/fetch"
need_root
if [ "${1:-}" = about ]; then
    version=$(cd "$PEERS/packages" && ls exim4-base_* | sed "s/exim4-base_\([^-]*\).*/\1/")
    echo "Exim $version; fsync of the spool files before the 250"
    exit
fi
enter_namespace "$PEERS/exim" Debian-exim
mkdir -p "$DIRECTORY/etc/exim4" "$DIRECTORY/var/spool/exim4" "$DIRECTORY/var/log/exim4" "$DIRECTORY/spool" "$DIRECTORY/log"
chown 61001:61001 "$DIRECTORY/spool" "$DIRECTORY/log"
cat >"$DIRECTORY/etc/exim4/exim4.conf" <<END
primary_hostname = exim.example
qualify_domain = exim.example
disable_ipv6 = true
local_interfaces = 127.0.0.1
daemon_smtp_ports = $PORT
tls_advertise_hosts =
host_lookup =
rfc1413_query_timeout = 0s
acl_smtp_rcpt = accept
smtp_accept_max = 400
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
smtp_connect_backlog = 128
split_spool_directory = true
begin routers
all:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = out
begin transports
out:
  driver = smtp
  port = $SINK_PORT
  allow_localhost
  hosts_avoid_tls = *
  connection_max_messages = 500
  max_parallel = $CONNECTIONS
begin retry
* * F,2h,1m
END
lay_over
mount --bind "$DIRECTORY/spool" /var/spool/exim4
mount --bind "$DIRECTORY/log" /var/log/exim4
exec /usr/sbin/exim4 -bdf -q10s -oP "$DIRECTORY/pid"
