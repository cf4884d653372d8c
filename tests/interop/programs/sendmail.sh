#!/bin/sh
# Sendmail with SMART_HOST.
set -e
for user in smmta smmsp; do
    getent passwd $user >/dev/null || useradd --system --user-group $user
done
mkdir -p /etc/mail /var/lib/sendmail/host_status "$WORK/sendmail/queue"
chmod 755 "$WORK"
cat >"$WORK/sendmail.mc" <<END
define(\`_USE_ETC_MAIL_')dnl
include(\`/usr/share/sendmail/cf/m4/cf.m4')dnl
OSTYPE(\`debian')dnl
define(\`QUEUE_DIR', \`$WORK/sendmail/queue')dnl
define(\`SMART_HOST', \`relay:[$HOST]')dnl
define(\`RELAY_MAILER_ARGS', \`TCP \$h $PORT')dnl
define(\`confDONT_BLAME_SENDMAIL', \`GroupWritableDirPathSafe')dnl
define(\`confMIN_QUEUE_AGE', \`0')dnl
define(\`confTO_HOSTSTATUS', \`1s')dnl
define(\`confPID_FILE', \`$WORK/sendmail/pid')dnl
define(\`confRUN_AS_USER', \`root')dnl
define(\`confSERVICE_SWITCH_FILE', \`/etc/mail/service.switch')dnl
undefine(\`ALIAS_FILE')dnl
FEATURE(\`nocanonify')dnl
FEATURE(\`nullclient', \`relay:[$HOST]')dnl
END
printf 'hosts files\naliases files\npasswd files\n' >/etc/mail/service.switch
m4 "$WORK/sendmail.mc" >/etc/mail/sendmail.cf
/usr/libexec/sendmail/sendmail -C /etc/mail/sendmail.cf -Am -odi -i -v -t -f "$FROM" <"$MESSAGE" || true
touch "$WORK/tried"
while :; do
    sleep 1
    /usr/libexec/sendmail/sendmail -C /etc/mail/sendmail.cf -Am -q -v
done
