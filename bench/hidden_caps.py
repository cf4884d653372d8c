#!/usr/bin/env python3
"""Limits that nobody told: mailweir, Postfix and Exim one after the other against the same receivers.

    bench/hidden_caps.py [--mailweir PROGRAM] [--page | --only NAME,...] [--relays mailweir,postfix,exim] [--jobs N]
                         [--worlds FILE,...] [--raw FILE,...] [--minutes N] [--write docs/feedback.md]

For every case `mailweir sink` enforces caps that the relay does not know; a campaign of more mail than
they let through is handed to the relay, ten times as fast as it may leave, and the sink tells second by
second what it accepted and what it refused to slow the relay down. Printed, and with --write put into the
document between its two marks, with a chart beside it: goodput from the 90th second on (from the third
window on where windows are long) as a part of the cap, the share of refused attempts from then on, and how
long it takes to use a cap that was raised.

The worlds of tests/pace_worlds are cases, too, but for those that last hours: caps in the words of their
files, and refusals that are no matter of pace. For these mailweir with `adaptive = false` is run beside,
and what counts is when half, nine tenths and all but a hundredth of what it delivers are delivered.

Only waiting costs time: cases run beside one another (--jobs), each for as long as it takes to see what is asked of
it (--whole: for as long as its world lasts). A run that could not begin is begun again, one that breaks is named at
the end and stops nothing; results are printed as they come, and --raw keeps them, so that the same command goes on
where it was cut off. --minutes begins no run that would last longer than that from the start of the command on; the
same command again does the rest. --raw takes further files, whose results are used and not changed: so programs may
be measured apart. What is in them is not run again, so a page can be written from them alone. --page: the cases
that docs/feedback.md shows.

Postfix is run when it is installed, Exim when `bench/peers/fetch` has put it into target/bench/peers, both by root
only and in a temporary directory, on loopback. Python's own library is all this needs. --only takes patterns:
`*-at-rcpt-*`.
"""

import argparse
import concurrent.futures
import dataclasses
import fnmatch
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True

from hidden.chart import chart
from hidden.judge import WARM, judge, other
from hidden.load import load
from hidden.relays import (PLAIN, RELAYS, ROOT, NotStarted, asked, end, exim_version, free_port, present, remove, start,
                           use_ports, wait_port)
from hidden.worlds import Case, enough, read

MARKS = ("<!-- hidden caps: begin -->", "<!-- hidden caps: end -->")
WORLDS = [f"{ROOT}/tests/pace_worlds/{name}.toml" for name in ("tuning", "held_out")]


def rate(name, cap, *more, text=None, seconds=180, changes=(), caps=None, **other):
    caps = caps or ((0, float(cap)),)
    return Case(name, text or f"{cap} messages/s", ("--rate", f"{cap}/s", *more), caps, seconds, changes, **other)


TRIES = 3  # of a run that could not begin
STARTS = 15  # seconds that a run takes beside its case: to start, to end, to be judged

# What docs/feedback.md shows: a case of each kind, in the order of the page. Patterns, as of --only.
PAGE = ["5-s-at-mail-german", "12-s-at-mail-chinese-in-gbk", "12-s-at-rcpt-452-4-2-2", "12-s-at-data-bare-451",
        "12-s-after-the-data-french-in-latin-1", "12-s-at-mail-closes-with-421-russian", "40-s-at-mail-japanese",
        "200-s-at-mail-italian", "7-s-at-mail-polish", "14-s-at-data-bare-450", "90-min-turkish", "120-min-ukrainian",
        "75-min-fixed-at-rcpt-hebrew", "12-s-from-200-s-on-30-s-german", "24-s-from-160-s-on-8-s",
        "3-connections-own-words", "5-connections-words-of-its-own", "17-messages-a-connection-own-words",
        "25-s-4-connections-17-on-each", "3-s-of-each-sender", "4-s-of-each-sender-after-the-data",
        "greylisting-of-new-recipients", "greylisting-after-the-data-2", "10-full-mailboxes", "a-filter-defers-30",
        "a-sender-is-blocked", "in-trouble-for-ten-minutes-at-mail", "421-at-the-greeting-now-and-then"]
# Of these the ones without another program beside: to one that reads no words it is all the same in which it is
# refused, and at which command hardly matters.
ALONE = ["12-s-at-rcpt-452-4-2-2", "12-s-at-data-bare-451", "12-s-after-the-data-french-in-latin-1",
         "12-s-at-mail-closes-with-421-russian", "7-s-at-mail-polish", "14-s-at-data-bare-450", "120-min-ukrainian",
         "75-min-fixed-at-rcpt-hebrew", "24-s-from-160-s-on-8-s", "5-connections-words-of-its-own",
         "4-s-of-each-sender-after-the-data"]


SLOW = ("--latency", "50ms")
SLOWER = ("--latency", "200ms")
CASES = [
    rate("rate-20", 20),
    rate("rate-7", 7, tuned=False),
    rate("rate-33", 33, tuned=False),
    rate("rate-120", 120, tuned=False),
    Case("rate-90m", "90 messages/min", ("--rate", "90/m"), ((0, 1.5),), 480, tuned=False, window=60),
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


def run(program, case, relay, seconds, *more, **named):
    """One relay against one sink; what the sink saw, a slot a second. Begun again if it could not begin."""
    for left in reversed(range(TRIES)):
        try:
            return run_once(program, case, relay, seconds, *more, **named)
        except NotStarted:
            if not left:
                raise
            time.sleep(1)


def run_once(program, case, relay, seconds, keys=None, sink_args=None, changes=None, most=None):
    home = tempfile.mkdtemp(prefix="hidden-caps-")
    os.chmod(home, 0o755)
    sink_port = free_port()
    try:
        server = start(program, relay, home, sink_port, case.keys if keys is None else keys)
    except BaseException:
        remove(home)
        raise
    changes = case.changes if changes is None else changes
    command = [program, "sink", "--listen", f"127.0.0.1:{sink_port}", "--json", "--series", "1s", "--seed", str(case.seed)]
    command += sink_args or case.sink
    for second, settings in changes:
        command += ["--change", f"{second}s {settings}"]
    sink = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    stop, failed = threading.Event(), []
    try:
        wait_port(sink_port, sink, "the sink")
        began = time.monotonic()
        messages = case.messages or int(1.2 * most * seconds) + 100
        sessions, pace = (4 if case.kind == "other" else 2), case.pace or min(10 * most, 400.0)
        threads = [threading.Thread(target=load, args=(server.port, range(n, messages, sessions), pace / sessions, case,
                                                       stop, failed), daemon=True) for n in range(sessions)]
        for thread in threads:
            thread.start()
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        stop.set()
        sink.send_signal(signal.SIGTERM)
        report = json.loads(sink.communicate(timeout=60)[0])
        if failed:
            raise RuntimeError(f"{case.name}, {relay}: {failed[0]}")
        return report
    finally:
        stop.set()
        if sink.poll() is None:
            sink.kill()
        end(sink)
        server.stop()
        remove(home)


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
    report = run(program, dataclasses.replace(case, messages=0), "mailweir", 40, keys, args, (), most=250.0)
    slots = [slot["messages"] for slot in report["series"]][10:39]
    return sum(slots) / len(slots)


def percent(value, digits=0):
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def table(cases, results):
    lines = [f"| hidden cap | relay | goodput after {WARM} s | throttled after {WARM} s | a raised cap is found after |",
             "| --- | --- | --- | --- | --- |"]
    for case in (case for case in cases if case.kind != "other"):
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


def other_table(cases, results):
    lines = ["| no matter of pace | relay | delivered | half after | 90 % after | 99 % after |",
             "| --- | --- | --- | --- | --- | --- |"]
    for case in (case for case in cases if case.kind == "other"):
        text = case.text + ("" if case.tuned else " †")
        of = results.get(case.name, {})
        for relay, result in ((relay, of[relay]) for relay in RELAYS if relay in of):
            if "times" in result:
                times = " | ".join("not at all" if t is None else f"{t} s" for t in result["times"])
                lines.append(f"| {text} | {relay} | {result['delivered']} | {times} |")
                text = ""
    return "\n".join(lines) + "\n"


def told_shortly(result):
    """A result in a line, as soon as it is there."""
    if "parts" not in result:
        return f"{sum(slot['messages'] for slot in result['series'])} accepted, {sum(result['refusals'].values())} refused"
    parts = [f"{percent(part['goodput'], 1)} of {part['cap']:.2f}/s" for part in result["parts"]]
    found = [f"found after {part['after']} s" for part in result["parts"] if part["rose"]]
    refused = f"{percent(result['throttled'], 1)} refused"
    return ", ".join([*parts, refused, *found, "as asked" if result["ok"] else "MISSED"])


def is_worthwhile(case, relay, page):
    """A message a second is that whatever the cap is, and fewer connections are about connections."""
    if page and case.name in ALONE and not relay.startswith("mailweir"):
        return False
    if relay == "Postfix, rate delay":
        return case.name in ("rate-20", "rate-90m")
    if relay == PLAIN:
        return case.kind == "other"
    if relay.endswith("2 connections"):
        return "connections" in case.name or case.name == "all"
    return True


def versions(program, relays):
    def said(*command):
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    mine = any(relay.startswith("mailweir") for relay in relays)
    text = f"{said(program, '--version')}, " if mine else ""
    text += f"Postfix {said('postconf', '-d', '-h', 'mail_version')}, " if "Postfix" in relays else ""
    text += f"{exim_version()}, " if "Exim" in relays else ""
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


class Kept:
    """What was measured before, so that a run that was cut off goes on where it was. Only the first file is written
    to; what the others have is used as well."""

    def __init__(self, files):
        self.file, self.caps, self.results, self.made = files[0] if files else None, {}, {}, []
        self.own = {"caps": {}, "results": {}, "made": []}
        for at, file in enumerate(files):
            if os.path.exists(file):
                with open(file) as opened:
                    read = json.load(opened)
                if at == 0:
                    self.own.update(read)
                self.made += read.get("made", [])
                for name, caps in read["caps"].items():
                    self.caps.setdefault(name, caps)
                for name, of in read["results"].items():
                    for relay, result in of.items():
                        self.results.setdefault(name, {}).setdefault(relay, result)
            elif at > 0:
                raise SystemExit(f"{file}: no such file; only the first file of --raw is made anew")

    def note_caps(self, name, caps):
        self.caps[name] = self.own["caps"][name] = caps
        self.write()

    def note(self, name, relay, result, made):
        for results in (self.results, self.own["results"]):
            results.setdefault(name, {})[relay] = result
        for of in (self.made, self.own["made"]):
            if made not in of:
                of.append(made)
        self.write()

    def write(self):
        if self.file:
            with open(f"{self.file}.new", "w") as file:
                json.dump(self.own, file)
            os.replace(f"{self.file}.new", self.file)


def measure(args, cases, relays, kept):
    """Runs what is not there yet. How many are left because they would last too long, and what broke."""
    broken, left, began = [], 0, time.monotonic()
    made = versions(args.mailweir, relays)

    def fits(lasts):
        """Whether what begins now ends in time."""
        return not args.minutes or time.monotonic() - began + lasts + STARTS <= 60 * args.minutes

    def run_in_time(case, relay, most):
        return run(args.mailweir, case, relay, case.seconds, most=most) if fits(case.seconds) else None

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        unknown = [case for case in cases if case.name not in kept.caps]
        references = {(case.name, part): pool.submit(told, args.mailweir, case, part)
                      for case in unknown for part in range(len(case.told))}
        for case in unknown:
            try:
                kept.note_caps(case.name, [(begin, cap if cap is not None else references[case.name, part].result())
                                           for part, (begin, cap) in enumerate(case.caps)])
            except Exception as error:
                print(f"{case.name}, when it is told its caps: {error!r}", flush=True)
                broken.append(f"{case.name} when it is told its caps")
        # mailweir by itself, as the others take the machine's time while they are loaded; the longest first, so
        # that none of them is left alone at the end.
        runs = [(case, relay) for relay in relays for case in cases
                if case.name in kept.caps and is_worthwhile(case, relay, args.page)]
        for mine in (True, False):
            waiting = {}
            for case, relay in sorted(runs, key=lambda run: -run[0].seconds):
                if relay.startswith("mailweir") == mine and relay not in kept.results.get(case.name, {}):
                    most = max((cap for _, cap in kept.caps[case.name]), default=100.0)
                    most *= case.senders if case.kind == "sender" else 1
                    waiting[pool.submit(run_in_time, case, relay, most)] = (case, relay)
            for future in concurrent.futures.as_completed(waiting):
                case, relay = waiting[future]
                try:
                    report = future.result()
                    if report is None:
                        left += 1
                        continue
                    # What is no matter of pace is judged when all are there.
                    result = report if case.kind == "other" else judge(case, kept.caps[case.name], report)
                except Exception as error:
                    print(f"{case.name} | {relay}: broken: {error!r}", flush=True)
                    broken.append(f"{case.name} with {relay}")
                    continue
                kept.note(case.name, relay, result, made)
                print(f"{case.name} | {relay}: {told_shortly(result)}", flush=True)
    return left, broken


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("--mailweir", default=os.path.join(ROOT, "target/release/mailweir"), help="the program")
    arguments.add_argument("--only", help="names of cases or patterns of them, with commas")
    arguments.add_argument("--page", action="store_true", help="the cases that docs/feedback.md shows")
    arguments.add_argument("--relays", help="mailweir, postfix, exim, with commas; or full names, with semicolons")
    arguments.add_argument("--worlds", help="files of worlds, with commas [default: those of tests/pace_worlds]")
    arguments.add_argument("--jobs", type=int, default=6, help="runs beside one another")
    arguments.add_argument("--ports", metavar="FIRST-LAST", help="ports to use [default: 10240-32767]")
    arguments.add_argument("--whole", action="store_true", help="each case for as long as its world lasts")
    arguments.add_argument("--raw", help="keep what the sinks saw in this file, as JSON; what is in it, or in further "
                                         "files behind commas, is not run again")
    arguments.add_argument("--minutes", type=float, help="begin no run that lasts longer than that from now on")
    arguments.add_argument("--write", help="the document to put the table into")
    arguments.add_argument("--list", action="store_true", help="names of cases and relays")
    args = arguments.parse_args()
    files = args.worlds.split(",") if args.worlds else [file for file in WORLDS if os.path.exists(file)]
    if args.ports:
        use_ports(args.ports)
    cases = CASES + [case for file in files for case in read(file)]
    if not args.whole:
        cases = [dataclasses.replace(case, seconds=enough(case)) for case in cases]
    only = args.only.split(",") if args.only else PAGE if args.page else ["*"]
    # In the order of the patterns, each case once.
    cases = list({case.name: case for one in only for case in cases if fnmatch.fnmatch(case.name, one)}.values())
    if not cases:
        arguments.error("no case has that name: --list prints them")
    if args.list:
        print(*(f"{case.name}: {case.text}" for case in cases), *RELAYS, sep="\n")
        return
    try:
        relays = asked(args.relays, present())
    except ValueError as error:
        arguments.error(str(error))
    kept = Kept(args.raw.split(",") if args.raw else [])
    left, broken = measure(args, cases, relays, kept)
    results = {case.name: kept.results.get(case.name, {}) for case in cases}
    for case in (case for case in cases if case.kind == "other"):
        of = results[case.name]
        if PLAIN in of:
            plain = other(case, of[PLAIN], None)
            results[case.name] = {relay: plain if relay == PLAIN else other(case, report, plain)
                                  for relay, report in of.items()}
        elif of:
            broken.append(f"{case.name} with nothing to compare it with")
    text = f"{table(cases, results)}\n{other_table(cases, results)}"
    print(text)
    if args.write and left:
        sys.exit(f"{left} runs are left: the same command again does them, and then {args.write} is written")
    if args.write:
        picture = chart([case for case in cases if case.kind == "cap"], results)
        made = "; ".join(dict.fromkeys(kept.made)) or versions(args.mailweir, relays)
        write(args.write, f"{made}. Made by `bench/hidden_caps.py`.\n\n{text}", picture)
    missed = [case.name for case in cases if not results.get(case.name, {}).get("mailweir", {}).get("ok", True)]
    print("missed the target: " + ", ".join(missed) if missed else "every case meets the target")
    if broken:
        print("did not run: " + ", ".join(broken))
    if left:
        print(f"{left} runs are left: the same command again does them")
    sys.exit(1 if missed or broken or left else 0)


if __name__ == "__main__":
    main()
