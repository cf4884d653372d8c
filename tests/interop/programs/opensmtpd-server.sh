#!/bin/sh
# OpenSMTPD that keeps mail for a domain in a Maildir.
set -e
for user in opensmtpd opensmtpq; do
    getent passwd $user >/dev/null || useradd --system --home /var/lib/opensmtpd/empty $user
done
getent passwd keeper >/dev/null || useradd --system --home "$MAIL" keeper
mkdir -p /var/lib/opensmtpd/empty /var/spool/smtpd
chmod 711 /var/spool/smtpd
cat >"$WORK/smtpd.conf" <<END
table users { first = keeper, second = keeper, copy = keeper, blind = keeper }
listen on $HOST port $PORT hostname server.test
action keep maildir "$MAIL/all" virtual <users>
match from any for domain example.test action keep
END
exec smtpd -d -f "$WORK/smtpd.conf"
