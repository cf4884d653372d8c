# mailweir itself, beside the others. PROGRAM: which one.
. "$(dirname "$0")/lib.sh"
if [ "${1:-}" = about ]; then
    echo "$("$PROGRAM" --version); fdatasync of the queue before the 250"
    exit
fi
cat >"$DIRECTORY/config.toml" <<END
hostname = "relay.example"
[[listener]]
address = "127.0.0.1:$PORT"
[queue]
store = "sqlite:$DIRECTORY/queue.db"
[provider.sink]
relay = "127.0.0.1:$SINK_PORT"
tls = "off"
connections = $CONNECTIONS
messages_per_connection = 100000
rate = []
[[route]]
recipient = "*"
via = "sink"
END
exec "$PROGRAM" run --config "$DIRECTORY/config.toml"
