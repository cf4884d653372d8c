"""Cases, and those made of the worlds of tests/pace_worlds."""

import dataclasses
import re
import tomllib

PATIENCE = 300  # seconds for what is no matter of pace, and after a change


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
    kind: str = "cap"  # or `other`: no matter of pace
    window: int = 1  # the longest of the caps, in seconds
    messages: int = 0  # 0: more than the caps let through
    senders: int = 1
    keys: str = "connections = 20"
    sized: bool = False  # messages of 2 to 34 kB, else short ones
    seed: int = 1


def enough(case):
    """Seconds after which it is clear what comes of a case: some windows more than are judged from on."""
    if case.kind != "cap":
        return case.seconds
    long = case.window >= 60
    # From when on a part is judged, and for how long.
    warm, found = (max(90, 2 * case.window) if long else 90), max(120, 2 * case.window)
    judged = max(60, 4 * case.window) if long else 60
    begin, cap = case.caps[-1]
    rose = len(case.caps) > 1 and (cap is None or cap > (case.caps[-2][1] or 0))
    return min(case.seconds, int(begin + (found if rose else warm) + judged))


def seconds(span):
    number, unit = re.fullmatch(r"([\d.]+)(ms|s|m|h)", span).groups()
    return float(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def case(world, tuned):
    """The world over real sockets; None if that would take hours, or if one sender only has a cap: the sink's
    series does not tell senders apart."""
    kind, window = world["kind"], world.get("window", 1)
    if kind == "profile" or world.get("wide") or window >= 3600 or kind == "sender" and "about" in world:
        return None
    caps = world.get("caps", "")
    sink = () if "latency=" in caps else ("--latency", world.get("round_trip", "50ms"))
    sink += ("--cap", caps) if caps else ()
    changes = (change.split(" ", 1) for change in world.get("changes", ()))
    changes = tuple((int(seconds(at)), settings) for at, settings in changes)
    senders, messages, arrive = world.get("senders", 4), world.get("messages", 0), world.get("arrive")
    parts = tuple((at, float(cap)) for at, cap in world.get("parts", ()))
    told, lasts, pace = (), world.get("seconds", 300), 0.0
    if kind == "sender":
        # While the largest part lasts; its end is not judged.
        whole = sum(1 / n for n in range(1, senders + 1))
        lasts = int(messages / whole / parts[0][1] * 0.9)
    elif kind == "cap" and not parts:
        # Without the round trips of simulations more leave than these reckon with.
        parts, told, messages = ((0, None),), (world["told"],), 0
    elif kind == "other":
        lasts = min(lasts, PATIENCE + (changes[-1][0] if changes else 0))
    if arrive:
        pace = messages / seconds(arrive)
    elif kind == "other":
        pace = 2000.0
    keys = world.get("provider", "")
    if "connections" not in keys:
        keys += "\nconnections = 20"
    name = re.sub(r"[^a-z0-9]+", "-", world["name"].lower()).strip("-")
    return Case(name, world["name"], sink, parts, lasts, changes, pace, told, tuned, kind, window, messages, senders,
                keys, "byte" in caps, world.get("seed", 1))


def read(path):
    with open(path, "rb") as file:
        worlds = tomllib.load(file)["world"]
    return [made for made in (case(world, "held_out" not in path) for world in worlds) if made]
