#!/usr/bin/env python3
"""Limits that nobody told, mailweir and Postfix one after the other against the same receiver.

    bench/hidden_caps.py [--mailweir PROGRAM] [--only NAME,...] [--jobs N] [--write docs/feedback.md]

For every case `mailweir sink` enforces caps that the relay does not know; a campaign of more mail than
they let through is handed to the relay, ten times as fast as it may leave, and the sink tells second by second what it accepted and
what it refused to slow the relay down. Printed, and with --write put into the document between its two
marks, with a chart beside it: goodput from the 60th second on as a part of the cap, the share of refused
attempts from then on, and how long it takes to use a cap that was raised.

Only waiting costs time: cases run beside one another (--jobs). Postfix is run when it is installed and
this is run by root: an instance of its own in a temporary directory, on loopback. Python's own library is
all this needs.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

WARM = 60  # seconds after which a cap must be in use
FOUND = 120  # seconds after which a raised one must be
GOOD, FEW = 0.9, 0.03
MEAN = 10  # seconds over which a pace is looked at
DOMAIN = "hidden.test"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MARKS = ("<!-- hidden caps: begin -->", "<!-- hidden caps: end -->")


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    text: str
    sink: tuple  # caps at first, as options
    caps: tuple  # (from which second, messages a second or None: as measured with these options told)
    seconds: int
    changes: tuple = ()  # (second, settings)
    pace: float = 0.0  # the relay is fed at this pace; 0: ten times the cap
    told: tuple = ()  # keys that tell mailweir the caps of each part, where no rate says what they allow
    tuned: bool = True  # in the search for the controller's numbers; false: held out


def rate(name, cap, *more, text=None, seconds=180, changes=(), caps=None, **other):
    caps = caps or ((0, float(cap)),)
    return Case(name, text or f"{cap} messages/s", ("--rate", f"{cap}/s", *more), caps, seconds, changes, **other)


SLOW = ("--latency", "50ms")
SLOWER = ("--latency", "200ms")
CASES = [
    rate("rate-20", 20),
    rate("rate-7", 7, tuned=False),
    rate("rate-33", 33, tuned=False),
    rate("rate-120", 120, tuned=False),
    Case("rate-90m", "90 messages/min", ("--rate", "90/m"), ((0, 1.5),), 300, tuned=False),
    rate("end-14", 14, "--as", "ses", text="14 messages/s, refused after the data", tuned=False),
    rate("fed-20", 20, text="20 messages/s, fed with 30/s", pace=30.0, tuned=False),
    rate("doubles", 20, text="20/s, from 120 s on 40/s", seconds=330, changes=((120, "rate=40/s"),),
         caps=((0, 20.0), (120, 40.0))),
    rate("dips", 33, text="33/s, from 120 s on 16/s, from 240 s on 33/s", seconds=450, tuned=False,
         changes=((120, "rate=16/s"), (240, "rate=33/s")), caps=((0, 33.0), (120, 16.0), (240, 33.0))),
    Case("connections-3", "3 connections", ("--max-connections", "3", *SLOW), ((0, None),), 180,
         told=("connections = 3",), tuned=False),
    Case("connections-double", "3 connections, from 120 s on 6", ("--max-connections", "3", *SLOW),
         ((0, None), (120, None)), 330, ((120, "connections=6"),), told=("connections = 3", "connections = 6")),
    Case("messages-17", "17 messages on a connection, then 421", ("--messages-per-connection", "17", *SLOWER),
         ((0, None),), 180, told=("messages_per_connection = 17",), tuned=False),
    Case("messages-17-silent", "17 on a connection, then closed without a word",
         ("--messages-per-connection", "17", "--close-silently", *SLOWER), ((0, None),), 180,
         told=("messages_per_connection = 17",), tuned=False),
    rate("all", 25, "--max-connections", "4", "--messages-per-connection", "17", *SLOW, tuned=False,
         text="25/s, 4 connections, 17 messages on each"),
]

QUICK = "minimal_backoff_time = 10s\nmaximal_backoff_time = 30s\nqueue_run_delay = 10s\n"
RELAYS = {
    "mailweir": None,
    "Postfix": "",
    "Postfix, quick retries": QUICK,
    "Postfix, quick retries, 2 connections": QUICK + "default_destination_concurrency_limit = 2\n",
    "Postfix, rate delay": "default_destination_rate_delay = 1s\n",
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
match = {{ domains = ["{DOMAIN}"] }}
relay = "127.0.0.1:{sink}"
tls = "off"
rate = []
{keys}
[[route]]
recipient = "*@{DOMAIN}"
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


def load(port, messages, pace, stop, failed):
    """A session that hands over `messages` at a pace, or as fast as they are taken."""
    body = b"Subject: hidden caps\r\nFrom: <app@shop.test>\r\n\r\n" + b"x" * 70 + b"\r\n.\r\n"
    envelope = f"MAIL FROM:<app@shop.test>\r\nRCPT TO:<someone@{DOMAIN}>\r\nDATA\r\n".encode()
    try:
        with socket.create_connection(("127.0.0.1", port), 60) as stream:
            answers = stream.makefile("rb")

            def answer(code):
                while True:
                    line = answers.readline()
                    if not line.startswith(code):
                        raise RuntimeError(f"the relay said {line!r}")
                    if line[3:4] != b"-":
                        return

            answer(b"220")
            stream.sendall(b"EHLO app.test\r\n")
            answer(b"250")
            began = time.monotonic()
            for n in range(messages):
                if stop.is_set():
                    return
                time.sleep(max(0.0, began + n / pace - time.monotonic()))
                stream.sendall(envelope)
                for code in (b"250", b"250", b"354"):
                    answer(code)
                stream.sendall(body)
                answer(b"250")
            stream.sendall(b"QUIT\r\n")
    except (OSError, RuntimeError) as error:
        if not stop.is_set():
            failed.append(error)


def run(program, case, relay, seconds, keys="connections = 20", sink_args=None, changes=None, most=None):
    """One relay against one sink; what the sink saw, a slot a second."""
    home = tempfile.mkdtemp(prefix="hidden-caps-")
    os.chmod(home, 0o755)
    sink_port = free_port()
    lines = RELAYS.get(relay)
    server = Mailweir(program, home, sink_port, keys) if lines is None else Postfix(home, sink_port, lines)
    changes = case.changes if changes is None else changes
    command = [program, "sink", "--listen", f"127.0.0.1:{sink_port}", "--json", "--series", "1s"]
    command += sink_args or case.sink
    for second, settings in changes:
        command += ["--change", f"{second}s {settings}"]
    sink = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    stop, failed = threading.Event(), []
    try:
        wait_port(sink_port, sink, "the sink")
        began = time.monotonic()
        messages = int(1.2 * most * seconds) + 100
        sessions, pace = 2, case.pace or min(10 * most, 400.0)
        threads = [threading.Thread(target=load, args=(server.port, messages // sessions, pace / sessions, stop, failed))
                   for _ in range(sessions)]
        for thread in threads:
            thread.start()
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        stop.set()
        sink.send_signal(signal.SIGTERM)
        report = json.loads(sink.communicate(timeout=30)[0])
        if failed:
            raise RuntimeError(f"{case.name}, {relay}: {failed[0]}")
        return report
    finally:
        stop.set()
        if sink.poll() is None:
            sink.kill()
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


def told(program, case, part):
    """What mailweir delivers when it is told the caps of a part: messages a second."""
    args = list(case.sink)
    if part:
        name, value = case.changes[part - 1][1].split("=")
        option = {"connections": "--max-connections"}[name]
        args[args.index(option) + 1] = value
    keys = case.told[part]
    if not keys.startswith("connections"):
        keys += "\nconnections = 20"
    report = run(program, case, "mailweir", 40, keys, args, (), most=250.0)
    slots = [slot["messages"] for slot in report["series"]][10:39]
    return sum(slots) / len(slots)


def judge(case, caps, report):
    accepted = [slot["messages"] for slot in report["series"]]
    refused = [slot["throttled"] for slot in report["series"]]
    for series in (accepted, refused):
        series += [0] * (case.seconds - len(series))
        del series[case.seconds:]
    ends = [begin for begin, _ in caps[1:]] + [case.seconds]
    parts = []
    for at, ((begin, cap), end) in enumerate(zip(caps, ends)):
        rose = at > 0 and cap > caps[at - 1][1]
        settle = begin + (FOUND if rose else WARM)
        good = sum(accepted[settle:end]) / max(1, end - settle) / cap if settle < end else None
        paces = (s for s in range(begin, end - MEAN + 1) if sum(accepted[s:s + MEAN]) >= GOOD * MEAN * cap)
        # A pace is known at the end of the seconds it was measured over.
        first = next(paces, None)
        parts.append({"cap": cap, "goodput": good, "rose": rose, "after": None if first is None else first + MEAN - begin})
    tried = sum(accepted[WARM:]) + sum(refused[WARM:])
    throttled = sum(refused[WARM:]) / tried if tried else None
    ok = throttled is not None and throttled < FEW and all(p["goodput"] is not None and p["goodput"] >= GOOD for p in parts)
    ok = ok and all(p["after"] is not None and p["after"] <= (FOUND if p["rose"] else WARM) for p in parts if p["rose"])
    return {"parts": parts, "throttled": throttled, "ok": ok, "accepted": accepted, "refused": refused,
            "refusals": report["refusals"]}


def percent(value, digits=0):
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def table(results):
    lines = ["| hidden cap | relay | goodput after 60 s | throttled after 60 s | a raised cap is found after |",
             "| --- | --- | --- | --- | --- |"]
    for case in CASES:
        first = True
        for relay in RELAYS:
            result = results.get(case.name, {}).get(relay)
            if result is None:
                continue
            good = ", ".join(percent(part["goodput"]) for part in result["parts"])
            rises = [part for part in result["parts"] if part["rose"]]
            found = ", ".join("not at all" if p["after"] is None else f"{p['after']} s" for p in rises) or "-"
            mark = "**" if relay == "mailweir" else ""
            text = case.text + ("" if case.tuned else " †") if first else ""
            lines.append(f"| {text} | {mark}{relay}{mark} | {good} | {percent(result['throttled'], 1)} | {found} |")
            first = False
    return "\n".join(lines) + "\n"


COLOURS = {"mailweir": "#0072b2", "Postfix": "#d55e00", "Postfix, quick retries": "#e69f00",
           "Postfix, quick retries, 2 connections": "#cc79a7", "Postfix, rate delay": "#999999"}


def chart(results):
    """Small pictures, one a case: what was accepted over time, and the cap."""
    cases = [case for case in CASES if results.get(case.name)]
    across, wide, high, left, top = 3, 330, 190, 46, 74
    height = top + high * -(-len(cases) // across) + 10
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{across * wide}" height="{height}" '
           f'viewBox="0 0 {across * wide} {height}" font-family="Helvetica, Arial, sans-serif" font-size="11" fill="#222">',
           f'<rect width="{across * wide}" height="{height}" fill="#fff"/>',
           '<text x="14" y="24" font-size="16">Messages accepted per second by a receiver with limits that nobody told</text>']
    x = 14
    for relay, colour in [*COLOURS.items(), ("the hidden cap", "#009e73")]:
        dash = ' stroke-dasharray="4 3"' if relay == "the hidden cap" else ""
        out.append(f'<line x1="{x}" x2="{x + 18}" y1="44" y2="44" stroke="{colour}" stroke-width="2"{dash}/>'
                   f'<text x="{x + 23}" y="48">{relay}</text>')
        x += 40 + 6 * len(relay)
    for at, case in enumerate(cases):
        x0, y0 = left + wide * (at % across), top + high * (at // across)
        w, h = wide - left - 14, high - 58
        of = results[case.name]
        caps = [(begin, part["cap"]) for (begin, _), part in zip(case.caps, next(iter(of.values()))["parts"])]
        most = max(cap for _, cap in caps) * 1.25
        px = lambda s: f"{x0 + w * s / case.seconds:.1f}"
        py = lambda v: f"{y0 + h - h * min(v, most) / most + 14:.1f}"
        out.append(f'<text x="{x0}" y="{y0 + 6}" font-size="12">{case.text}</text>')
        out.append(f'<path d="M{px(0)} {py(most)}V{py(0)}H{px(case.seconds)}" fill="none" stroke="#888"/>')
        for value in (0, max(cap for _, cap in caps)):
            out.append(f'<text x="{x0 - 5}" y="{float(py(value)) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
        for second in range(0, case.seconds + 1, 60 if case.seconds <= 200 else 120):
            out.append(f'<text x="{px(second)}" y="{y0 + h + 28}" text-anchor="middle">{second} s</text>')
        ends = [begin for begin, _ in caps[1:]] + [case.seconds]
        steps = "".join(f"{'L' if i else 'M'}{px(b)} {py(c)}H{px(e)}" for i, ((b, c), e) in enumerate(zip(caps, ends)))
        out.append(f'<path d="{steps}" fill="none" stroke="#009e73" stroke-width="1.5" stroke-dasharray="4 3"/>')
        for relay in reversed(RELAYS):
            if relay not in of:
                continue
            series, mean = of[relay]["accepted"], 5
            points = " ".join(f"{px(s + mean / 2)},{py(sum(series[s:s + mean]) / len(series[s:s + mean]))}"
                              for s in range(0, case.seconds - mean + 1, 2))
            out.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[relay]}" stroke-width="1.3"/>')
    return "\n".join([*out, "</svg>"]) + "\n"


def is_worthwhile(case, relay):
    """A message a second is that whatever the cap is, and fewer connections are about connections."""
    if relay == "Postfix, rate delay":
        return case.name in ("rate-20", "rate-90m")
    if relay.endswith("2 connections"):
        return "connections" in case.name or case.name == "all"
    return True


def versions(program, postfix):
    def said(*command):
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    text = f"{said(program, '--version')}, "
    text += f"Postfix {said('postconf', '-d', '-h', 'mail_version')}, " if postfix else ""
    return text + f"Linux {platform.release()}, {os.cpu_count()} cores ({cpu}), {time.strftime('%Y-%m-%d', time.gmtime())}"


def write(document, text, picture):
    with open(document) as file:
        whole = file.read()
    before, rest = whole.split(MARKS[0], 1)
    after = rest.split(MARKS[1], 1)[1]
    with open(document, "w") as file:
        file.write(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{after}")
    with open(os.path.join(os.path.dirname(document), "hidden-caps.svg"), "w") as file:
        file.write(picture)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("--mailweir", default=os.path.join(ROOT, "target/release/mailweir"), help="the program")
    arguments.add_argument("--only", help="names of cases, with commas")
    arguments.add_argument("--relays", help="names of relays, with semicolons")
    arguments.add_argument("--jobs", type=int, default=6, help="runs beside one another")
    arguments.add_argument("--raw", help="keep what the sinks saw in this file, as JSON; what is in it is not run again")
    arguments.add_argument("--write", help="the document to put the table into")
    arguments.add_argument("--list", action="store_true", help="names of cases and relays")
    args = arguments.parse_args()
    if args.list:
        print(*(f"{case.name}: {case.text}" for case in CASES), *RELAYS, sep="\n")
        return
    cases = [case for case in CASES if not args.only or case.name in args.only.split(",")]
    postfix = shutil.which("postfix") and os.geteuid() == 0
    relays = [r for r in RELAYS if (postfix or r == "mailweir") and (not args.relays or r in args.relays.split(";"))]
    if not postfix:
        print("Postfix is not here, or this is not root: mailweir alone", file=sys.stderr)

    # What was measured before, so that a run that was cut off goes on where it was.
    kept = {"caps": {}, "results": {}}
    if args.raw and os.path.exists(args.raw):
        with open(args.raw) as file:
            kept = json.load(file)
    caps, results, broken = kept["caps"], kept["results"], []

    def keep():
        if args.raw:
            with open(f"{args.raw}.new", "w") as file:
                json.dump(kept, file)
            os.replace(f"{args.raw}.new", args.raw)

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        unknown = [case for case in cases if case.name not in caps]
        references = {(case.name, part): pool.submit(told, args.mailweir, case, part)
                      for case in unknown for part in range(len(case.told))}
        for case in unknown:
            caps[case.name] = [(begin, cap if cap is not None else references[case.name, part].result())
                               for part, (begin, cap) in enumerate(case.caps)]
        keep()
        # mailweir by itself, as the Postfixes take the machine's time while they are loaded; the
        # longest first, so that none of them is left alone at the end.
        mine = [(case, relay) for relay in relays[:1] for case in cases]
        theirs = [(case, relay) for relay in relays[1:] for case in cases if is_worthwhile(case, relay)]
        for runs in (mine, theirs):
            waiting = {}
            for case, relay in sorted(runs, key=lambda run: -run[0].seconds):
                if relay not in results.get(case.name, {}):
                    most = max(cap for _, cap in caps[case.name])
                    waiting[pool.submit(run, args.mailweir, case, relay, case.seconds, most=most)] = (case, relay)
            for future in concurrent.futures.as_completed(waiting):
                case, relay = waiting[future]
                try:
                    result = judge(case, caps[case.name], future.result())
                except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                    print(f"{case.name} | {relay}: {error}", file=sys.stderr, flush=True)
                    broken.append(f"{case.name} with {relay}")
                    continue
                results.setdefault(case.name, {})[relay] = result
                keep()
                short = {key: value for key, value in result.items() if key not in ("accepted", "refused")}
                print(f"{case.name} | {relay}: {short}", file=sys.stderr, flush=True)
    text = table(results)
    print(text)
    if args.write:
        write(args.write, f"{versions(args.mailweir, postfix)}. Made by `bench/hidden_caps.py`.\n\n{text}", chart(results))
    missed = [name for name, of in results.items() if "mailweir" in of and not of["mailweir"]["ok"]]
    print("missed the target: " + ", ".join(missed) if missed else "every case meets the target")
    if broken:
        print("did not run: " + ", ".join(broken))
    sys.exit(1 if missed or broken else 0)


if __name__ == "__main__":
    main()
