#!/bin/sh
# nullmailer: a queue that goes to one relay.
set -e
id mail >/dev/null
mkdir -p /etc/nullmailer /var/spool/nullmailer/queue /var/spool/nullmailer/tmp /var/spool/nullmailer/failed
chown -R mail /var/spool/nullmailer
[ -p /var/spool/nullmailer/trigger ] || mkfifo /var/spool/nullmailer/trigger
chown mail /var/spool/nullmailer/trigger
case ${TLS:-} in
starttls) options="--starttls --x509cafile=$CA" ;;
implicit) options="--ssl --x509cafile=$CA" ;;
*) options= ;;
esac
[ -n "${LOGIN:-}" ] && options="$options --auth-login --user=$LOGIN --pass=$PASSWORD"
echo "$HOST smtp --port=$PORT $options" >/etc/nullmailer/remotes
echo 1 >/etc/nullmailer/pausetime
echo 2 >/etc/nullmailer/maxpause
echo client.test >/etc/nullmailer/me
chmod 755 "$WORK"
setpriv --reuid=mail --regid=mail --clear-groups nullmailer-inject -f "$FROM" -h <"$MESSAGE" 2>&1
setpriv --reuid=mail --regid=mail --clear-groups nullmailer-send 2>&1 |
    while read -r line; do
        echo "$line"
        case $line in *[Ff]ailed*) touch "$WORK/tried" ;; esac
    done
