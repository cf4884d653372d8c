"""Folds the output of `perf script` and draws it: bench/flamegraph calls this.

Frames narrower than a share of the whole are left out (with what is above them), so that the
picture stays small; what an asynchronous program adds to every stack (polls of futures, the
runtime's own loop) is folded into one frame, since it says nothing.
"""

import re
import sys
from html import escape

WIDTH, ROW, TOP = 1200, 16, 40
LEAST = 0.0015  # of the whole
NOISE = re.compile(
    r"^(core::(ops|future|panic|result|option|mem|ptr|iter)|std::(panic|sys|thread|rt)|alloc::boxed|tokio::(runtime|task|util|loom))"
    r"|^<?(core|alloc|std)::.*(FnOnce|Future|closure)|^__rust_(begin|end)_short_backtrace|^(clone3|start_thread|_start|__libc_start.*|main)$"
)


def clean(symbol):
    """A name without hash, generics and closure numbers."""
    symbol = re.sub(r"::h[0-9a-f]{16}$", "", symbol)
    symbol = re.sub(r"\{\{closure\}\}|\{closure(_env)?#\d+\}|\{async_(fn|block)(_env)?#\d+\}", "{}", symbol)
    while True:
        shorter = re.sub(r"<[^<>]*>", "", symbol.replace("->", ""))
        if shorter == symbol:
            break
        symbol = shorter
    symbol = re.sub(r"(::\{\})+$", "", symbol).replace("::::", "::").strip(": ")
    return symbol or "?"


def stacks(lines):
    """Pairs of thread and frames from the outside to the inside."""
    thread, frames = None, []
    for line in lines:
        line = line.rstrip("\n")
        if not line.strip():
            if thread is not None:
                yield thread, frames[::-1]
            thread, frames = None, []
        elif not line[0].isspace():
            thread, frames = line.strip(), []
        else:
            raw = line.split(None, 1)[1] if len(line.split(None, 1)) > 1 else "?"
            raw = re.sub(r"\+0x[0-9a-f]+$", "", raw.strip())
            name = "[unknown]" if raw == "[unknown]" else clean(raw)
            if NOISE.search(raw.lstrip("<")) or name == "[unknown]":
                name = None
            if name and (not frames or frames[-1] != name):
                frames.append(name)
    if thread is not None:
        yield thread, frames[::-1]


class Frame:
    def __init__(self):
        self.samples = 0
        self.inside = {}

    def add(self, names):
        self.samples += 1
        if names:
            self.inside.setdefault(names[0], Frame()).add(names[1:])


def colour(name):
    """System calls and kernel blue, SQLite brown, our own code green, the rest yellow."""
    if name.startswith("mailweir"):
        base = (90, 170, 90)
    elif name.lower().startswith(("sqlite", "rusqlite", "balance", "pager", "wal", "btree", "vdbe")):
        base = (190, 130, 80)
    elif re.match(r"^(__x64_|do_|sys_|__sys|tcp_|ip_|__|entry_|ext4|vfs_|net_|sock_|ksys|asm_|el0|x64_|schedule)", name):
        base = (110, 150, 200)
    else:
        base = (215, 185, 90)
    shade = sum(name.encode()) % 30 - 15
    return "#%02x%02x%02x" % tuple(max(0, min(255, part + shade)) for part in base)


def depth(frame, whole):
    inside = [depth(f, whole) for f in frame.inside.values() if f.samples >= LEAST * whole]
    return 1 + max(inside, default=0)


def draw(frame, name, left, level, whole, height, out):
    width = frame.samples / whole * WIDTH
    y = TOP + height - (level + 1) * ROW
    share = 100 * frame.samples / whole
    out.append(f'<g><title>{escape(name)}: {share:.1f} %</title><rect x="{left:.1f}" y="{y}" width="{max(width - 0.3, 0.3):.1f}" height="{ROW - 1}" fill="{colour(name)}"/>')
    room = int(width / 6.2)
    if room >= 4:
        short = name if len(name) <= room else "…" + name[-(room - 1) :]
        out.append(f'<text x="{left + 2:.1f}" y="{y + 11}">{escape(short)}</text>')
    out.append("</g>\n")
    for inner, child in sorted(frame.inside.items()):
        if child.samples >= LEAST * whole:
            draw(child, inner, left, level + 1, whole, height, out)
            left += child.samples / whole * WIDTH


def main():
    sys.setrecursionlimit(10_000)
    root = Frame()
    for thread, frames in stacks(sys.stdin):
        root.add([f"thread {thread}", *frames])
    if not root.samples:
        sys.exit("no samples")
    height = depth(root, root.samples) * ROW
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height + TOP + 10}" viewBox="0 0 {WIDTH} {height + TOP + 10}"'
        ' font-family="monospace" font-size="10.5">\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f'<text x="8" y="16" font-size="14">{escape(sys.argv[1])}</text>\n'
        f'<text x="8" y="31">{root.samples} samples; a frame is as wide as its share; hover for names and shares</text>\n'
    ]
    draw(root, "all", 0.0, 0, root.samples, height, out)
    out.append("</svg>\n")
    sys.stdout.write("".join(out))


main()
