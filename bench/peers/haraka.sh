# Haraka with its outbound queue, a process for each processor.
. "$(dirname "$0")/lib.sh"
[ -e "$PEERS/haraka/complete" ] || missing "not fetched: bench/peers/fetch"
command -v node >/dev/null || missing "no node"
home=$PEERS/haraka/node_modules/Haraka
if [ "${1:-}" = about ]; then
    version=$(node -p "require('$home/package.json').version")
    echo "Haraka $version; written, not synced before the 250"
    exit
fi
config=$DIRECTORY/config
mkdir -p "$config" "$DIRECTORY/queue" "$DIRECTORY/plugins"
cp -r "$home/config/." "$config/"
# The limit on connections is for each process.
processes=$(nproc)
[ "$CONNECTIONS" -ge $((processes * 4)) ] || processes=1
echo haraka.example >"$config/me"
echo relay >"$config/plugins"
printf '[main]\nlisten=127.0.0.1:%s\nnodes=%s\n' "$PORT" "$processes" >"$config/smtp.ini"
printf '[relay]\nacl=true\nforce_routing=true\n' >"$config/relay.ini"
echo 127.0.0.0/8 >"$config/relay_acl_allow"
printf '[domains]\nany={"action":"accept","nexthop":"127.0.0.1:%s"}\n' "$SINK_PORT" >"$config/relay_dest_domains.ini"
printf 'enable_tls=false\nlocal_mx_ok=true\nconcurrency_max=%s\n' $((CONNECTIONS / processes)) >"$config/outbound.ini"
printf '[main]\nlevel=notice\n' >"$config/log.ini"
echo "$DIRECTORY/queue" >"$config/queue_dir"
cd "$DIRECTORY"
exec node "$home/bin/haraka" -c "$DIRECTORY"
