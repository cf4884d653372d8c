#!/bin/sh
# anacron mails what a job prints to MAILTO.
mkdir "$WORK/anacron"
printf 'SHELL=/bin/sh\nMAILTO=root\n1 0 hello cat %s\n' "$TEXT" >"$WORK/anacrontab"
exec anacron -d -f -n -s -t "$WORK/anacrontab" -S "$WORK/anacron"
