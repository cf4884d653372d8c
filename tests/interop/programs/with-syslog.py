"""Prints what programs send to /dev/log: the log of those that know no other place."""

import os
import socket

sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
if os.path.lexists("/dev/log"):
    raise SystemExit("/dev/log exists")
sock.bind("/dev/log")
os.chmod("/dev/log", 0o666)
while True:
    print(sock.recv(65536).decode("utf-8", "replace").rstrip("\0\n"), flush=True)
