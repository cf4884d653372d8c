#!/bin/sh
# Java runs a source file as it is, with the library and what that needs on its class path.
exec java -cp /usr/share/java/javax.mail.jar:/usr/share/java/javax.activation.jar:/usr/share/java/jakarta.activation.jar \
    JakartaMail.java "$@"
