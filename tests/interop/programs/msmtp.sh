#!/bin/sh
# msmtp -t takes the recipients from the message.
exec msmtp --file=/dev/null --host="$HOST" --port="$PORT" --from="$FROM" -t <"$MESSAGE"
