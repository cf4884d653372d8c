#!/bin/sh
# sendEmail composes a message from its arguments.
exec sendemail -f "$FROM_NAME <$FROM>" -t "$TO" "$ALSO" -cc "$COPY" -bcc "$BLIND" -u "$SUBJECT" \
    -o message-charset=utf-8 -o "message-file=$TEXT" -a "$ATTACHMENT" -s "$HOST:$PORT" -o tls=no
