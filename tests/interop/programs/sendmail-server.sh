#!/bin/sh
# Sendmail whose local mailer is a file for each message.
set -e
for user in smmta smmsp; do
    getent passwd $user >/dev/null || useradd --system --user-group $user
done
for user in first second copy blind; do
    getent passwd $user >/dev/null || useradd --system --home "$MAIL" $user
done
mkdir -p /etc/mail /var/lib/sendmail/host_status "$WORK/sendmail/queue"
cat >"$WORK/keep" <<END
#!/bin/sh
exec cat >"$MAIL/\$1.\$\$"
END
chmod 755 "$WORK/keep" "$WORK"
cat >"$WORK/sendmail.mc" <<END
define(\`_USE_ETC_MAIL_')dnl
include(\`/usr/share/sendmail/cf/m4/cf.m4')dnl
OSTYPE(\`debian')dnl
define(\`QUEUE_DIR', \`$WORK/sendmail/queue')dnl
define(\`confPID_FILE', \`$WORK/sendmail/pid')dnl
define(\`confDOMAIN_NAME', \`server.test')dnl
define(\`confSERVICE_SWITCH_FILE', \`/etc/mail/service.switch')dnl
define(\`confDONT_BLAME_SENDMAIL', \`GroupWritableDirPathSafe')dnl
define(\`LOCAL_MAILER_PATH', \`$WORK/keep')dnl
define(\`LOCAL_MAILER_ARGS', \`keep \$u')dnl
define(\`LOCAL_MAILER_FLAGS', \`lsDFMP9')dnl
define(\`confQUEUE_LA', \`1000')dnl a busy machine only queues else
define(\`confREFUSE_LA', \`1000')dnl
undefine(\`ALIAS_FILE')dnl
FEATURE(\`no_default_msa')dnl
FEATURE(\`accept_unresolvable_domains')dnl
DAEMON_OPTIONS(\`Family=inet, Name=MTA, Addr=$HOST, Port=$PORT')dnl
LOCAL_DOMAIN(\`example.test')dnl
MAILER(\`local')dnl
MAILER(\`smtp')dnl
END
printf 'hosts files\naliases files\npasswd files\n' >/etc/mail/service.switch
m4 "$WORK/sendmail.mc" >/etc/mail/sendmail.cf
exec /usr/libexec/sendmail/sendmail -C /etc/mail/sendmail.cf -bD
