"""A whole sweep at a glance, at any width: totals, time left, what failed, what runs, and the rest.

Runs are listed one by one where they fit, and else in the rows of their table.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from experiments.report import pace
from experiments.report.standing import described, outcome
from experiments.sweep.run import ENDED, Run

STYLES = {
    "done": "green",
    "running": "cyan",
    "diverged": "red",
    "failed": "red",
    "damaged": "red",
}

MARKS = {
    "failed": "x",
    "diverged": "x",
    "damaged": "!",
    "running": ">",
    "preempted": "~",
    "interrupted": "~",
    "missing": ".",
    "done": "#",
}
"""A letter a state, in the order of interest."""

_BAD = ("failed", "diverged", "damaged")
_BAR = 20
_WIDE, _WIDEST = 100, 140  # columns of a terminal that have room for more

COLUMNS = (
    "cell",
    "seed",
    "state",
    "step",
    "left",
    "loss",
    "steps/s",
    "waits",
    "tries",
    "owner",
    "",
)


def overview(
    states: Mapping[Run, str],
    left: float | None,
    *,
    width: int = 200,
    height: int = 200,
    whole: bool = False,
) -> RenderableType:
    """How a sweep stands.

    Args:
      states: How each run stands.
      left: Seconds until all have ended; None if nothing tells.
      width, height: What there is room for.
      whole: Break long lines in place of cutting them, at the cost of height.
    """
    head = _totals(states, left)
    room = max(1, height - 5)
    if len(states) <= room:
        return Group(*head, Text(), _runs(states, width, whole))
    bad, running = (
        {run: state for run, state in _of_interest(states.items()) if state in chosen}
        for chosen in (_BAD, ("running",))
    )
    rows = len({run.cell.row for run in states})
    for_rows = min(rows, max(3, room // 3)) + 2
    for_running = min(_lines(running), (room - for_rows) // 2 if bad else room - for_rows)
    for_bad = min(_lines(bad), room - for_rows - for_running)
    for_running = min(_lines(running), room - for_rows - for_bad)
    return Group(
        *head,
        *_listed(bad, for_bad, width, whole),
        *_listed(running, for_running, width, whole),
        Text(),
        *_rows(states, width, max(1, room - for_bad - for_running - 2)),
    )


def _lines(states: Mapping[Run, str]) -> int:
    """How many lines it takes to list runs, with an empty one and headings."""
    return len(states) + 2 if states else 0


def _listed(
    states: Mapping[Run, str], lines: int, width: int, whole: bool
) -> Iterator[RenderableType]:
    """As many runs as there is room for."""
    if not states:
        return
    count = len(states) if lines >= _lines(states) else max(1, lines - 3)
    yield Text()
    yield _runs(dict(list(states.items())[:count]), width, whole)
    if count < len(states):
        yield Text(f"and {len(states) - count} more", "dim")


def _totals(states: Mapping[Run, str], left: float | None) -> list[RenderableType]:
    """Two lines: how far it is and what is left, and how many runs stand how."""
    counts = Counter(states.values())
    ended = sum(counts[state] for state in ENDED)
    filled = _BAR * ended // max(1, len(states))
    text = f"{'#' * filled}{'-' * (_BAR - filled)} {ended} of {len(states)} runs have ended"
    if ended < len(states):
        text += f"; left: {pace.shown(left)}"
    said = Text(no_wrap=True, overflow="ellipsis")
    for state in (each for each in MARKS if counts[each]):
        said.append(f"{', ' if said else ''}")
        said.append(f"{counts[state]} {state}", STYLES.get(state, ""))
    return [Text(text, "bold", no_wrap=True, overflow="ellipsis"), said]


def _runs(states: Mapping[Run, str], width: int, whole: bool) -> Table:
    """Runs one by one, what is of most interest first; narrow terminals show fewer columns."""
    wanted = [
        name
        for name in COLUMNS
        if (width >= _WIDE or name not in ("loss", "steps/s", "waits", "owner", "tries"))
        and (width >= _WIDEST or name != "owner")
    ]
    rows = [_row(run, state) for run, state in _of_interest(states.items())]
    wanted = [name for name in wanted if any(row[name] for row in rows) or name == "cell"]
    table = Table(box=None, pad_edge=False, expand="" in wanted)
    for name in wanted:
        long = name in ("cell", "")
        table.add_column(
            name,
            justify="left" if long or name in ("state", "owner") else "right",
            no_wrap=not (whole and long),
            overflow="fold" if whole and long else "ellipsis",
            ratio={"cell": None if whole else 3, "": 4}.get(name),
            min_width={"cell": 12, "": 12}.get(name, len(name)),
        )
    for (_, state), row in zip(_of_interest(states.items()), rows, strict=True):
        table.add_row(*(Text(row[name]) for name in wanted), style=STYLES.get(state, "dim"))
    return table


def _of_interest(states: Iterable[tuple[Run, str]]) -> list[tuple[Run, str]]:
    order = list(MARKS)
    return sorted(states, key=lambda each: order.index(each[1]))


def _row(run: Run, state: str) -> dict[str, str]:
    known: Mapping[str, Any] = described(run, state)
    row = dict.fromkeys(COLUMNS, "") | {
        "cell": run.cell.name,
        "seed": str(run.seed),
        "state": state,
        "step": f"{known['step']}/{known['steps']}" if known["steps"] else "",
        "tries": str(known["attempts"] or ""),
        "owner": known["owner"] or "",
        "": outcome(run),
    }
    if known["rate"]:
        row |= {
            "left": pace.shown(known["seconds_left"]),
            "loss": f"{known['loss']:.3f}",
            "steps/s": f"{known['rate']:.1f}",
            "waits": f"{known['waiting']:.0%}",
        }
    return row


def _rows(states: Mapping[Run, str], width: int, room: int) -> list[RenderableType]:
    """A line for each row of the table, with a letter a run, or as many as there is room for."""
    rows: dict[str, list[str]] = defaultdict(list)
    for run, state in states.items():
        rows[run.cell.row].append(state)
    order = list(MARKS)
    ranked = sorted(rows.items(), key=lambda row: min(map(order.index, row[1])))
    table = Table(box=None, pad_edge=False, show_header=False)
    name_width = min(max(map(len, rows)), max(16, width // 3))
    table.add_column(width=name_width, no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    count_width = max(len(f"{len(each)}/{len(each)}") for each in rows.values())
    strip = max(5, width - name_width - count_width - 4)
    shown = ranked[: room - 1] if len(ranked) > room else ranked
    for name, each in shown:
        ended = sum(state in ENDED for state in each)
        table.add_row(Text(name), f"{ended}/{len(each)}", _strip(each, strip))
    parts: list[RenderableType] = [table]
    if len(shown) < len(ranked):
        parts.append(Text(f"and {len(ranked) - len(shown)} more rows", "dim"))
    legend = dict.fromkeys(MARKS.values(), "")
    for state in Counter(states.values()):
        legend[MARKS[state]] += f"{' or ' if legend[MARKS[state]] else ''}{state}"
    said = "  ".join(f"{mark} {words}" for mark, words in legend.items() if words)
    parts.append(Text(said, "dim", no_wrap=True, overflow="ellipsis"))
    return parts


def _strip(states: Sequence[str], most: int) -> Text:
    """A letter a run, sorted; where they are too many, as many of each as is its share of them."""
    counts = Counter(states)
    order = [state for state in reversed(MARKS) if counts[state]]
    text = Text(no_wrap=True)
    if len(states) <= most:
        for state in order:
            text.append(MARKS[state] * counts[state], STYLES.get(state, ""))
        return text
    rest = most - len(order)  # each that there is has one
    for state in order:
        letters = 1 + rest * counts[state] // len(states)
        text.append(MARKS[state] * letters, STYLES.get(state, ""))
    return text
