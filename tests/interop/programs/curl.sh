#!/bin/sh
# curl uploads a message as it is.
exec curl --silent --show-error --crlf --url "smtp://$HOST:$PORT/client.test" --mail-from "$FROM" \
    --mail-rcpt "$TO" --mail-rcpt "$ALSO" --mail-rcpt "$COPY" --mail-rcpt "$BLIND" --upload-file "$MESSAGE"
