#!/bin/sh
# GNU mailutils, over SMTP or (first word) by sendmail.
case $1 in
smtp) mailer="smtp://$HOST:$PORT;notls;noauth" ;;
*) mailer=sendmail:/usr/sbin/sendmail ;;
esac
exec mail.mailutils -E "set sendmail=\"$mailer\"" -E 'set charset=utf-8' -E 'set sendwait' \
    --content-type='text/plain; charset=utf-8' -r "$FROM" -s "$SUBJECT" -A "$ATTACHMENT" \
    -a "Cc: $COPY" -a "Bcc: $BLIND" "$TO,$ALSO" <"$TEXT"
