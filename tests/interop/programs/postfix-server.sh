#!/bin/sh
# Postfix that keeps mail for a domain in Maildirs, with STARTTLS.
set -e
PERMIT=permit
SETTINGS='smtpd_tls_security_level = may'
. ./postfix-maildirs.sh
