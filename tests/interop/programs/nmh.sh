#!/bin/sh
# nmh sends a draft over SMTP. It makes its own date and id, and what it calls Bcc is a message in a message.
printf 'Path: Mail\n' >"$WORK/.mh_profile"
mkdir -p "$WORK/Mail"
sed -e '/^Date:/d' -e '/^Message-ID:/d' -e 's/^Bcc:/Dcc:/' "$MESSAGE" >"$WORK/Mail/draft"
exec /usr/bin/mh/send -mts smtp -server "$HOST" -port "$PORT" -notls -nosasl "$WORK/Mail/draft"
