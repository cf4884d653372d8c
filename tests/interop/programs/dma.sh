#!/bin/sh
# DragonFly's mail agent, with a smart host; cron calls `dma -q` on real systems.
mkdir -p /etc/dma /var/spool/dma
printf 'SMARTHOST %s\nPORT %s\nMAILNAME client.test\n' "$HOST" "$PORT" >/etc/dma/dma.conf
if [ -n "${LOGIN:-}" ]; then
    echo "$LOGIN|$HOST:$PASSWORD" >/etc/dma/auth.conf
    echo 'AUTHPATH /etc/dma/auth.conf' >>/etc/dma/dma.conf
    case $TLS in
    clear) echo INSECURE ;;
    starttls) printf 'SECURETRANSFER\nSTARTTLS\n' ;;
    implicit) echo SECURETRANSFER ;;
    esac >>/etc/dma/dma.conf
fi
chown root:mail /var/spool/dma
chmod 2775 /var/spool/dma
python3 "$PWD/with-syslog.py" &
sleep 1
dma -i -f "$FROM" "$TO" "$ALSO" "$COPY" "$BLIND" <"$MESSAGE" || exit 1
while :; do
    sleep 2
    touch "$WORK/tried"
    rm -f /var/spool/dma/flush
    dma -q1s
done
