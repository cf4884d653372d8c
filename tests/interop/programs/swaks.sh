#!/bin/sh
# swaks, as people use it in scripts: a message from a file, the envelope by hand.
exec swaks --server "$HOST" --port "$PORT" --ehlo client.test --from "$FROM" --to "$TO,$ALSO,$COPY,$BLIND" \
    --data "@$MESSAGE" --hide-all
