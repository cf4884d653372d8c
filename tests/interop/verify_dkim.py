"""Verifies both signatures of every *.both of a directory with dkimpy; exit code 1 if one does not hold.

Usage: verify_dkim.py DIRECTORY, with the published keys in DIRECTORY/keys: a name and a record on each line.
"""

import pathlib
import sys

import dkim

directory = pathlib.Path(sys.argv[1])
keys = dict(line.split(" ", 1) for line in (directory / "keys").read_text().splitlines())


def published(name, timeout=5):
    return keys.get(name.decode().rstrip("."), "").encode()


verified = 0
for path in sorted(directory.glob("*.both")):
    message = path.read_bytes()
    for index in (0, 1):
        try:
            holds = dkim.DKIM(message).verify(index, dnsfunc=published)
        except dkim.DKIMException as error:
            holds, why = False, error
        else:
            why = "the signature does not hold"
        if not holds:
            sys.exit(f"{path}, signature {index}: {why}")
        verified += 1
print(verified)
