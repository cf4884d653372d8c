#!/bin/sh
# git send-email with a patch of a fresh repository, over SMTP or (first word) by sendmail.
set -e
export GIT_AUTHOR_NAME="$FROM_NAME" GIT_AUTHOR_EMAIL="$FROM" GIT_COMMITTER_NAME="$FROM_NAME" GIT_COMMITTER_EMAIL="$FROM"
repository=$WORK/repository
git init -q "$repository"
cd "$repository"
echo one >file
git add file
git commit -q -F - <<END
$SUBJECT

$(cat "$TEXT")
END
[ "$1" = sendmail ] || set -- --smtp-server "$HOST" --smtp-server-port "$PORT" --smtp-domain client.test
[ "$1" != sendmail ] || set -- --sendmail-cmd /usr/sbin/sendmail
git send-email --quiet --confirm=never --suppress-cc=all --envelope-sender=auto --from "$FROM_NAME <$FROM>" --to "$TO" \
    --to "$ALSO" --cc "$COPY" --bcc "$BLIND" --subject-prefix= --no-signature --transfer-encoding=quoted-printable \
    "$@" --root HEAD
