"""The relays that are compared, each in a temporary directory and on loopback."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PEERS = os.environ.get("PEERS", f"{ROOT}/target/bench/peers")

PLAIN = "mailweir, adaptive = false"
QUICK = "minimal_backoff_time = 10s\nmaximal_backoff_time = 30s\nqueue_run_delay = 10s\n"
RELAYS = {
    "mailweir": None,
    PLAIN: None,
    "Postfix": "",
    "Postfix, quick retries": QUICK,
    "Postfix, quick retries, 2 connections": QUICK + "default_destination_concurrency_limit = 2\n",
    "Postfix, rate delay": "default_destination_rate_delay = 1s\n",
    "Exim": None,
}


class NotStarted(RuntimeError):
    """A program that did not begin to listen: nothing was measured, so it may be tried again."""


class Ports:
    """Ports for runs beside one another: none is given twice before all others were, and none from which the kernel
    takes those of outgoing connections."""

    def __init__(self, first=10240, last=32767):
        self.first, self.count, self.lock = first, last - first + 1, threading.Lock()
        # Not where another run of this program begins.
        self.next = os.getpid() * 97 % self.count

    def take(self):
        with self.lock:
            for _ in range(self.count):
                port = self.first + self.next
                self.next = (self.next + 1) % self.count
                with socket.socket() as probe:
                    try:
                        probe.bind(("127.0.0.1", port))
                        return port
                    except OSError:
                        continue
        raise NotStarted(f"no port from {self.first} on is free")


ports = Ports()


def free_port():
    return ports.take()


def use_ports(text):
    """Ports from a range such as `36000-36999` only."""
    global ports
    first, last = (int(part) for part in text.split("-", 1))
    ports = Ports(first, last)


def wait_port(port, child, what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if child.poll() is not None:
            raise NotStarted(f"{what} ended at its start")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise NotStarted(f"{what} does not listen on {port}")


def end(child, seconds=20):
    """Waits for a child that was told to end, and ends it if it does not."""
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait(seconds)


class Mailweir:
    def __init__(self, program, home, sink, keys):
        self.port = free_port()
        with open(f"{home}/config.toml", "w") as config:
            config.write(f"""hostname = "relay.example"
[[listener]]
address = "127.0.0.1:{self.port}"
[queue]
store = "sqlite:{home}/queue.db"
[admin]
address = "127.0.0.1:{free_port()}"
[provider.hidden]
relay = "127.0.0.1:{sink}"
tls = "off"
rate = []
{keys}
[[route]]
via = "hidden"
""")
        log = open(f"{home}/log", "w")
        self.child = subprocess.Popen([program, "run", "--config", f"{home}/config.toml"], stdin=subprocess.DEVNULL,
                                      stdout=log, stderr=log)
        try:
            wait_port(self.port, self.child, "mailweir")
        except NotStarted:
            self.stop()
            raise

    def stop(self):
        self.child.kill()
        end(self.child)


class Postfix:
    def __init__(self, home, sink, lines):
        self.port, self.etc = free_port(), f"{home}/etc"
        for directory in ("etc", "spool", "data"):
            os.mkdir(f"{home}/{directory}")
        with open(f"{self.etc}/main.cf", "w") as main:
            main.write(f"""compatibility_level = 3.6
queue_directory = {home}/spool
data_directory = {home}/data
myhostname = relay.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
maillog_file = {home}/maillog
maillog_file_prefixes = {home}
relayhost = [127.0.0.1]:{sink}
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
{lines}""")
        services = ["cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr", "pickup unix n - n 60 1 pickup",
                    "rewrite unix - - n - - trivial-rewrite", "bounce unix - - n - 0 bounce",
                    "defer unix - - n - 0 bounce", "trace unix - - n - 0 bounce", "proxymap unix - - n - - proxymap",
                    "error unix - - n - - error", "retry unix - - n - - error", "discard unix - - n - - discard",
                    "smtp unix - - n - - smtp", "relay unix - - n - - smtp", "anvil unix - - n - 1 anvil",
                    "scache unix - - n - 1 scache", "tlsmgr unix - - n 1000? 1 tlsmgr",
                    "flush unix n - n 1000? 0 flush", "postlog unix-dgram n - n - 1 postlogd"]
        with open(f"{self.etc}/master.cf", "w") as master:
            master.write("\n".join([f"127.0.0.1:{self.port} inet n - n - - smtpd", *services]) + "\n")
        shutil.chown(f"{home}/data", "postfix")
        log = open(f"{home}/log", "w")
        self.child = subprocess.Popen(["postfix", "-c", self.etc, "start-fg"], stdin=subprocess.DEVNULL, stdout=log,
                                      stderr=log)
        try:
            wait_port(self.port, self.child, "Postfix")
        except NotStarted:
            self.stop()
            raise

    def stop(self):
        try:
            subprocess.run(["postfix", "-c", self.etc, "stop"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, timeout=30)
        except subprocess.TimeoutExpired:
            pass
        end(self.child)


class Exim:
    """As in bench/peers: unpacked, in a mount namespace of its own, its default but for quick retries."""

    def __init__(self, home, sink, _):
        self.port = free_port()
        environment = {**os.environ, "DIRECTORY": home, "PORT": str(self.port), "SINK_PORT": str(sink), "CONNECTIONS": "20",
                       "PEERS": PEERS}
        log = open(f"{home}/output", "w")
        self.child = subprocess.Popen(["bash", f"{ROOT}/bench/peers/exim.sh"], env=environment, stdin=subprocess.DEVNULL,
                                      stdout=log, stderr=log, start_new_session=True)
        try:
            wait_port(self.port, self.child, "Exim")
        except NotStarted:
            self.stop()
            raise

    def stop(self):
        # What delivers is in the group of the daemon.
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.child.pid, sign)
            except ProcessLookupError:
                break
            time.sleep(0.5)
        end(self.child)


def exim_version():
    """From the name of the package that it was unpacked from."""
    names = (name for name in os.listdir(f"{PEERS}/packages") if name.startswith("exim4-base_"))
    return "Exim " + next(names, "exim4-base_?").split("_")[1].split("-")[0]


def start(program, relay, home, sink, keys):
    """The relay of that name, before a sink."""
    if relay.startswith("Postfix"):
        return Postfix(home, sink, RELAYS[relay])
    if relay == "Exim":
        return Exim(home, sink, "")
    return Mailweir(program, home, sink, keys + ("\nadaptive = false" if relay == PLAIN else ""))


def asked(text, here):
    """Those of `here` that are named: with commas, `postfix` for all of its kind; with semicolons by their full names."""
    if not text:
        return here
    families = {name.strip().lower() for name in text.split(",")}
    exact = {name.strip() for name in text.split(";")}
    found = [relay for relay in here if relay in exact or relay.split(",")[0].lower() in families]
    known = {relay.split(",")[0].lower() for relay in RELAYS}
    if not exact & set(RELAYS) and families - known:
        raise ValueError(f"{text}: expected some of {', '.join(sorted(known))}, or full names (--list) with semicolons")
    return found


def remove(home):
    """What may still be written to by a child that is ending."""
    shutil.rmtree(home, ignore_errors=True)


def present():
    """The relays that can run here."""
    root = os.geteuid() == 0
    here = {"Postfix": root and shutil.which("postfix"), "Exim": root and os.path.exists(f"{PEERS}/exim/complete")}
    for name, way in (("Postfix", "install it"), ("Exim", "bench/peers/fetch")):
        if not here[name]:
            print(f"{name} is not here ({way}), or this is not root", file=sys.stderr)
    return [relay for relay in RELAYS if here.get(relay.split(",")[0], True)]
