# SPDX-License-Identifier: Apache-2.0
"""What the bench says: the machine, the table, the means, the JSON file and the picture."""

import datetime
import html
import json
import math
import os
import re
import sys


def say(text):
    print("bench: " + text, file=sys.stderr, flush=True)


def machine():
    """One line that says what the figures were measured on."""
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        match = re.search(r"^model name\s*:\s*(.*)$", file.read(), re.MULTILINE)
        if match:
            model = match.group(1)
    with open("/proc/meminfo", encoding="ascii") as file:
        kib = int(re.search(r"MemTotal:\s*(\d+)", file.read()).group(1))
    load = os.getloadavg()[0]
    return (f"{model}, {os.cpu_count()} cores, {kib >> 20} GiB, Linux {os.uname().release}, "
            f"load {load:.1f}")


def geometric(values):
    return math.exp(sum(math.log(value) for value in values) / len(values))


def means(table):
    """{group: mean and minimum of the ratios against a peer}; "all" for everything."""
    groups = {}
    for entry in table:
        if "peer" in entry:
            groups.setdefault(entry.get("group", "all"), []).append(entry)
    if len(groups) > 1:
        groups["all"] = [entry for group in groups.values() for entry in group]
    return {name: {"geometric_mean": round(geometric([row["ratio"] for row in group]), 3),
                   "by_cpu": round(geometric([row["cpu_ratio"] for row in group]), 3),
                   "minimum": round(min(row["ratio"] for row in group), 3),
                   "minimum_row": min(group, key=lambda row: row["ratio"])["name"]}
            for name, group in groups.items()}


def print_table(table):
    print(f"{'row':34} {'unit':10} {'ours':>8} {'peer':>8} {'ratio':>6} {'spread':>6} "
          f"{'by CPU':>6}  peer")
    for entry in table:
        title = entry.get("title", entry["name"])
        start = f"{title:34} {entry['unit']:10} {entry['ours']:8.2f} "
        if "peer" in entry:
            print(f"{start}{entry['peer_value']:8.2f} {entry['ratio']:6.2f} "
                  f"{entry['spread']:6.0%} {entry['cpu_ratio']:6.2f}  {entry['peer']}")
        elif "limit" in entry:
            print(f"{start}{'limit':>8} {entry['limit']:6.2f} {entry['spread']:6.0%}")
        else:
            print(start)
    for name, mean in means(table).items():
        print(f"{'geometric mean, ' + name:34} {'ratio':10} {'':8} {'':8} "
              f"{mean['geometric_mean']:6.2f} {'':6} {mean['by_cpu']:6.2f}  "
              f"lowest {mean['minimum']:.2f} ({mean['minimum_row']})")


def result(name, stated, runs, table):
    """The result file's content; geometric_mean is that of all rows with a peer."""
    out = {"set": name, "machine": stated, "runs": runs,
           "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
           "rows": table}
    found = means(table)
    if found:
        out["means"] = found
        out["geometric_mean"] = (found.get("all") or next(iter(found.values())))["geometric_mean"]
    return out


def write_json(path, content):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")


# --- the picture ----------------------------------------------------------------------------------

WIDTH, LEFT, RIGHT, TOP, STEP, BAR = 920, 270, 150, 74, 26, 16
COLOURS = {"five": "#2b6cb0", "others": "#2f855a"}
OTHER_COLOUR = "#6b46c1"


def _scale(limit):
    """Where a ratio lies: logarithmic, because a ratio of 1/2 is as far from 1 as 2 is."""
    low = math.log2(0.5)
    high = max(math.log2(limit), 2.0)

    def at(ratio):
        value = min(max(math.log2(max(ratio, 1e-9)), low), high)
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)
    return at


def _text(x, y, text, size=13, anchor="start", colour="#1a202c", weight="normal"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}" '
            f'fill="{colour}" font-weight="{weight}">{html.escape(text)}</text>')


def _line(x1, y1, x2, y2, colour, width=1.0):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width}"/>')


def _bar(entry, y, at):
    """A row's bar with its spread, its name and its figures."""
    ratio = entry["ratio"]
    end = at(ratio)
    one = at(1.0)
    middle = y + BAR / 2
    colour = COLOURS.get(entry.get("group"), OTHER_COLOUR) if ratio >= 1 else "#c53030"
    low, high = at(ratio / (1 + entry["spread"])), at(ratio * (1 + entry["spread"]))
    peer = entry.get("peer", f"limit {entry.get('limit')}")
    return [_text(LEFT - 10, y + 13, entry.get("title", entry["name"]), anchor="end"),
            f'<rect x="{min(one, end):.1f}" y="{y}" width="{max(abs(end - one), 1):.1f}" '
            f'height="{BAR}" fill="{colour}"/>',
            _line(low, middle, high, middle, "#1a202c"),
            _line(low, middle - 4, low, middle + 4, "#1a202c"),
            _line(high, middle - 4, high, middle + 4, "#1a202c"),
            _text(WIDTH - RIGHT + 8, y + 13, f"{ratio:.2f}", weight="bold"),
            _text(WIDTH - RIGHT + 56, y + 13, peer, 11, colour="#4a5568")]


def picture(content):
    """An SVG of the ratios of a result; logarithmic, the spread as a whisker."""
    table = [entry for entry in content["rows"] if "ratio" in entry]
    limit = max([entry["ratio"] for entry in table] + [2.0]) * 1.15
    at = _scale(limit)
    height = TOP + STEP * (len(table) + len(content.get("means", {}))) + 40
    bottom = height - 34
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
           f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
           f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
           _text(16, 26, f"vmd against its fastest peer: set {content['set']}", 18, weight="bold"),
           _text(16, 46, f"{content['machine']}; {content['date']}; minimum of "
                 f"{content['runs']} run(s) each", 11, colour="#4a5568")]
    tick = 0.5
    while tick <= limit:
        colour = "#1a202c" if tick == 1 else "#cbd5e0"
        out += [_line(at(tick), TOP - 6, at(tick), bottom, colour),
                _text(at(tick), bottom + 16, f"{tick:g}x", 11, "middle", "#4a5568")]
        tick *= 2
    y = TOP
    for entry in table:
        out += _bar(entry, y, at)
        y += STEP
    for name, mean in content.get("means", {}).items():
        value = mean["geometric_mean"]
        out += [_text(LEFT - 10, y + 13, f"geometric mean, {name}", anchor="end", weight="bold"),
                f'<circle cx="{at(value):.1f}" cy="{y + BAR / 2}" r="6" fill="#1a202c"/>',
                _text(WIDTH - RIGHT + 8, y + 13, f"{value:.2f}", weight="bold"),
                _text(WIDTH - RIGHT + 56, y + 13, f"lowest {mean['minimum']:.2f}", 11,
                      colour="#4a5568")]
        y += STEP
    return "\n".join([*out, "</svg>", ""])
