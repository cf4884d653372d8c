#!/bin/sh
# lettre, in the program that runs this table.
export LETTRE=yes
exec "$SELF" --ignored --exact lettre::a_client_with_lettre
