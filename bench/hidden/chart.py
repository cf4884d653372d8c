"""Small pictures, one a case."""

COLOURS = {"mailweir": "#0072b2", "Postfix": "#d55e00", "Postfix, quick retries": "#e69f00",
           "Postfix, quick retries, 2 connections": "#cc79a7", "Postfix, rate delay": "#999999",
           "Exim": "#56b4e9"}


def chart(all_cases, results):
    """Small pictures, one a case: what was accepted over time, and the cap."""
    cases = [case for case in all_cases if results.get(case.name)]
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
        for relay in reversed(COLOURS):
            if relay not in of:
                continue
            series, mean = of[relay]["accepted"], 5
            points = " ".join(f"{px(s + mean / 2)},{py(sum(series[s:s + mean]) / len(series[s:s + mean]))}"
                              for s in range(0, case.seconds - mean + 1, 2))
            out.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[relay]}" stroke-width="1.3"/>')
    return "\n".join([*out, "</svg>"]) + "\n"
