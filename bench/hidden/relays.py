"""The relays that are compared, each in a temporary directory and on loopback."""

import os
import shutil
import signal
import socket
import subprocess
import sys
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


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_port(port, child, what):
    for _ in range(600):
        if child.poll() is not None:
            raise RuntimeError(f"{what} ended at its start")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{what} does not listen on {port}")


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
        wait_port(self.port, self.child, "mailweir")

    def stop(self):
        self.child.kill()
        self.child.wait()


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
        wait_port(self.port, self.child, "Postfix")

    def stop(self):
        subprocess.run(["postfix", "-c", self.etc, "stop"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()


class Exim:
    """As in bench/peers: unpacked, in a mount namespace of its own, its default but for quick retries."""

    def __init__(self, home, sink, _):
        self.port = free_port()
        environment = {**os.environ, "DIRECTORY": home, "PORT": str(self.port), "SINK_PORT": str(sink), "CONNECTIONS": "20",
                       "PEERS": PEERS}
        log = open(f"{home}/output", "w")
        self.child = subprocess.Popen(["bash", f"{ROOT}/bench/peers/exim.sh"], env=environment, stdin=subprocess.DEVNULL,
                                      stdout=log, stderr=log, start_new_session=True)
        wait_port(self.port, self.child, "Exim")

    def stop(self):
        # What delivers is in the group of the daemon.
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.child.pid, sign)
            except ProcessLookupError:
                break
            time.sleep(0.5)
        self.child.wait()


def start(program, relay, home, sink, keys):
    """The relay of that name, before a sink."""
    if relay.startswith("Postfix"):
        return Postfix(home, sink, RELAYS[relay])
    if relay == "Exim":
        return Exim(home, sink, "")
    return Mailweir(program, home, sink, keys + ("\nadaptive = false" if relay == PLAIN else ""))


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
