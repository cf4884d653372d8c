"""What is asked of a run: see tests/pace_worlds/judge.rs, which asks the same of virtual ones."""

WARM = 90  # seconds after which a cap must be in use; the third window where windows are long
FOUND = 120  # seconds after which a raised one must be, or two windows
GOOD, FEW = 0.92, 0.03
LONGER, GRAIN = 1.05, 5  # what is no matter of pace, beside adaptive = false: share, and seconds besides
MEAN = 10  # seconds over which a pace is looked at
PARTS = (0.5, 0.9, 0.99)


def series(case, report):
    accepted = [slot["messages"] for slot in report["series"]]
    refused = [slot["throttled"] for slot in report["series"]]
    for of in (accepted, refused):
        of += [0] * (case.seconds - len(of))
        del of[case.seconds:]
    return accepted, refused


def judge(case, caps, report):
    """A cap: how much of it is used, what is refused, when a raised one is found."""
    accepted, refused = series(case, report)
    if case.kind == "sender":
        return of_senders(case, caps[0][1], accepted, refused, report)
    long = case.window >= 60
    warm, found = (max(WARM, 2 * case.window) if long else WARM), max(FOUND, 2 * case.window)
    ends = [begin for begin, _ in caps[1:]] + [case.seconds]
    parts = []
    for at, ((begin, cap), end) in enumerate(zip(caps, ends)):
        rose = at > 0 and cap > caps[at - 1][1]
        settle = begin + (found if rose else warm)
        lasts = (end - settle) // case.window * case.window if long else end - settle
        good = sum(accepted[settle:settle + lasts]) / lasts / cap if lasts > 0 else None
        over = max(MEAN, case.window)
        paces = (s for s in range(begin, end - over + 1) if sum(accepted[s:s + over]) >= GOOD * over * cap)
        # A pace is known at the end of the seconds it was measured over.
        first = next(paces, None)
        parts.append({"cap": cap, "goodput": good, "rose": rose, "after": None if first is None else first + over - begin})
    tried = sum(accepted[warm:]) + sum(refused[warm:])
    throttled = sum(refused[warm:]) / tried if tried else None
    ok = throttled is not None and throttled <= FEW and all(p["goodput"] is not None and p["goodput"] >= GOOD for p in parts)
    ok = ok and all(p["after"] is not None and p["after"] <= found for p in parts if p["rose"])
    return {"parts": parts, "throttled": throttled, "ok": ok, "accepted": accepted, "refused": refused,
            "refusals": report["refusals"]}


def of_senders(case, cap, accepted, refused, report):
    """A cap of each sender: beside one that has more, the mail of the others is through."""
    whole = sum(1 / n for n in range(1, case.senders + 1))
    lasts = case.seconds - WARM
    enough = sum(min(case.messages / whole / n, cap * lasts) for n in range(1, case.senders + 1))
    good, tried = sum(accepted) / enough, sum(accepted[WARM:]) + sum(refused[WARM:])
    throttled = sum(refused[WARM:]) / tried if tried else None
    ok = good >= GOOD and throttled is not None and throttled <= FEW
    return {"parts": [{"cap": cap, "goodput": good, "rose": False, "after": None}], "throttled": throttled, "ok": ok,
            "accepted": accepted, "refused": refused, "refusals": report["refusals"]}


def times(accepted, whole):
    """When half, nearly all and all but a hundredth of so many were accepted."""
    found = []
    for part in PARTS:
        total, at = 0, None
        for second, messages in enumerate(accepted):
            total += messages
            if total >= int(whole * part):
                at = second + 1
                break
        found.append(at)
    return found


def other(case, report, plain):
    """No matter of pace: as fast as where nothing is learned. `plain` is that run's result, or None for itself."""
    accepted, refused = series(case, report)
    whole = sum(plain["accepted"] if plain else accepted)
    took = times(accepted, whole)
    enough = plain["times"] if plain else took
    ok = all(t is not None and t <= e * LONGER + GRAIN for t, e in zip(took, enough))
    return {"times": took, "ok": ok, "accepted": accepted, "refused": refused, "delivered": sum(accepted),
            "refusals": report["refusals"]}
