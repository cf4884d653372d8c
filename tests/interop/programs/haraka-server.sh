#!/bin/sh
# Haraka with a plugin that keeps messages in files, and one that refuses a recipient.
set -e
haraka=$NODE_PATH/Haraka
site=$WORK/haraka
mkdir -p "$site/plugins" "$site/queue"
cp -r "$haraka/config" "$site/config"
printf 'listen=%s:%s\nnodes=0\n' "$HOST" "$PORT" >"$site/config/smtp.ini"
printf 'server.test\n' >"$site/config/me"
printf 'tls\nkeeper\n' >"$site/config/plugins"
printf 'key=%s\ncert=%s\n' "$KEY" "$CERTIFICATE" >"$site/config/tls.ini"
cp "$PWD/with-haraka-keeper.js" "$site/plugins/keeper.js"
exec node "$haraka/bin/haraka" -c "$site"
