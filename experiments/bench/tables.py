"""What a benchmark found, as Markdown tables and as JSON."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from experiments.bench import inputs
from experiments.bench.costs import Cost
from experiments.bench.forms import Choice
from experiments.bench.timings import Timing
from experiments.bench.workloads import Section, Workload
from experiments.report import markdown

Measured = TypeVar("Measured", Timing, Cost)


@dataclass(frozen=True)
class Results:
    """What a benchmark found.

    Attributes:
      machine: As `machine.describe` has it.
      peak_gflops: Most GFLOP/s of a matrix product, by number of threads.
      load: Load average over a minute, before and after.
      skipped: Peers that are missing, and why.
      sections: Each with its timings.
      costs: Compile times and peak memory.
    """

    machine: dict[str, Any]
    peak_gflops: dict[int, float]
    load: tuple[float, float]
    skipped: dict[str, str]
    sections: Sequence[tuple[Section, Sequence[Timing]]]
    costs: Sequence[Cost]


def summary(results: Results) -> dict[str, Any]:
    """Everything as plain data, with the ratios; below 1 ours is faster, or takes less."""
    return {
        "machine": results.machine,
        "peak_gflops": {str(threads): peak for threads, peak in results.peak_gflops.items()},
        "load": list(results.load),
        "disturbed": [
            str(workload)
            for _, timings in results.sections
            for workload, own in _by_workload(timings).items()
            if max(timing.others for timing in own.values()) > _DISTURBING
        ],
        "skipped": results.skipped,
        "sections": [
            {
                "title": section.title,
                "axis": section.axis,
                "rows": [
                    _timing_row(section, workload, own, results.peak_gflops)
                    for workload, own in _by_workload(timings).items()
                ],
            }
            for section, timings in results.sections
        ],
        "costs": [
            _cost_row(workload, own) for workload, own in _by_workload(results.costs).items()
        ],
    }


# PyTorch's threads wait for each other hundreds of times a step: with one of two processors taken
# by others, its steps were seen to take up to 200 times as long, ours twice.
_DISTURBING = 0.1


def as_json(results: Results) -> str:
    """The summary as JSON."""
    return json.dumps(summary(results), indent=2)


def as_markdown(results: Results) -> str:
    """The tables, after what they were measured on and before what could not be measured."""
    found = summary(results)
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    peaks = ", ".join(
        f"{peak:.0f} GFLOP/s with {threads} threads"
        for threads, peak in results.peak_gflops.items()
    )
    parts = [
        f"{machine['host']}: {machine['processor']}, {machine['cores']} cores, device "
        f"{machine['device']}, {machine['precision']}. Python {machine['python']}, {versions}. "
        f"Matrix product: {peaks}. Load {results.load[0]:.1f} before, {results.load[1]:.1f} after.",
        _warning(found["disturbed"]),
        "\n".join(f"{name} is left out: {reason}" for name, reason in found["skipped"].items()),
        "Times are medians of turns in ms, ours with quartiles. In front of the time of each peer "
        "stands ours / theirs, below 1 ours is faster, and behind it the form that was timed: of "
        "those in which its users write it, the fastest here. Peak is the share of the matrix "
        "product's speed that ours reaches.",
    ]
    failures: list[str] = []
    for section in found["sections"]:
        parts += [f"## {section['title']}", _timings(section["rows"], failures)]
    if found["costs"]:
        parts += [
            "## Compile time and peak memory",
            "Until the end of the first step less one step, in s; the most memory that it took "
            "beyond what the process had, in MiB, with ours / theirs in front.",
            _costs(found["costs"], failures),
        ]
    parts.append("\n".join(failures))
    return "\n\n".join(part for part in parts if part)


def _warning(disturbed: Sequence[str]) -> str:
    if not disturbed:
        return ""
    return (
        f"WARNING: the machine was not idle, so the ratios of {len(disturbed)} workloads mean "
        f"nothing: {'; '.join(disturbed)}"
    )


def _by_workload(measured: Sequence[Measured]) -> dict[Workload, dict[str, Measured]]:
    """Groups timings or costs by workload, then by peer."""
    grouped: dict[Workload, dict[str, Measured]] = {}
    for each in measured:
        grouped.setdefault(each.workload, {})[each.peer] = each
    return grouped


def _timing_row(
    section: Section, workload: Workload, timings: dict[str, Timing], peaks: dict[int, float]
) -> dict[str, Any]:
    macs = inputs.macs(workload)
    peers: dict[str, dict[str, object]] = {}
    for name, timing in timings.items():
        if timing.failure:
            peers[name] = {"failure": timing.failure, "forms": _forms(timing.choice)}
            continue
        peers[name] = {
            "form": timing.choice.form,
            "forms": _forms(timing.choice),
            "median_ms": timing.median,
            "others": timing.others,
            "quartiles_ms": list(timing.quartiles),
            "milliseconds": list(timing.milliseconds),
            "ratio": _ratio(timings["ours"], timing, "median"),
            "peak_share": 2 * macs / (timing.median / 1000) / 1e9 / peaks[workload.threads],
        }
    return {
        "workload": str(workload),
        **asdict(workload),
        "value": section.value(workload) if section.axis else None,
        "macs": macs,
        "peers": peers,
    }


def _forms(choice: Choice) -> dict[str, dict[str, object]]:
    """The median of each form before one was chosen, or why there is none."""
    timed: dict[str, dict[str, object]] = {
        name: {"median_ms": taken} for name, taken in choice.milliseconds.items()
    }
    return timed | {name: {"failure": reason} for name, reason in choice.failures.items()}


def _cost_row(workload: Workload, costs: dict[str, Cost]) -> dict[str, Any]:
    peers: dict[str, dict[str, object]] = {}
    for name, cost in costs.items():
        if cost.failure:
            peers[name] = {"failure": cost.failure}
            continue
        peers[name] = {
            "form": cost.form,
            "build_seconds": cost.build_seconds,
            "peak_mib": cost.peak_mib,
            "memory_ratio": _ratio(costs["ours"], cost, "peak_mib"),
        }
    return {"workload": str(workload), **asdict(workload), "peers": peers}


def _ratio(ours: Timing | Cost, theirs: Timing | Cost, attribute: str) -> float | None:
    return None if ours.failure else getattr(ours, attribute) / getattr(theirs, attribute)


def _timings(rows: Sequence[dict], failures: list[str]) -> str:
    peers = _columns(rows)
    table = markdown.table("workload", "ours, ms", "peak", *peers)
    for row in rows:
        ours = row["peers"]["ours"]
        entries = ["failed", ""]
        if "failure" not in ours:
            low, high = ours["quartiles_ms"]
            share = f"{ours['peak_share']:.0%}" if row["macs"] else ""
            entries = [f"{_ms(ours['median_ms'])} [{_ms(low)}, {_ms(high)}]", share]
        for name in peers:
            peer = row["peers"].get(name)
            entries.append(_entry(peer, _timing))
        table.add_row(row["workload"], *entries)
        failures += _failures(row)
    return markdown.render(table)


def _timing(peer: dict) -> str:
    return f"{_factor(peer['ratio'])} ({_ms(peer['median_ms'])}) {peer['form']}".rstrip()


def _costs(rows: Sequence[dict], failures: list[str]) -> str:
    peers = ["ours", *_columns(rows)]
    table = markdown.table(
        "workload", *(f"{name}{unit}" for name in peers for unit in (", s", ", MiB"))
    )
    for row in rows:
        entries = []
        for name in peers:
            peer = row["peers"].get(name)
            entries.append(_entry(peer, lambda peer: f"{peer['build_seconds']:.1f}"))
            entries.append(
                _entry(
                    peer, lambda peer: f"{_factor(peer['memory_ratio'])} ({peer['peak_mib']:.0f})"
                )
            )
        table.add_row(row["workload"], *entries)
        failures += _failures(row)
    return markdown.render(table)


def _columns(rows: Sequence[dict]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["peers"] if name != "ours"))


def _entry(peer: dict | None, text: Callable[[dict], str]) -> str:
    if peer is None:
        return ""
    return "failed" if "failure" in peer else text(peer)


def _failures(row: dict) -> list[str]:
    return [
        f"{', '.join((*of, row['workload']))}: {each['failure']}"
        for name, peer in row["peers"].items()
        for of, each in (
            ((name,), peer),
            *(((name, form), of_form) for form, of_form in peer.get("forms", {}).items()),
        )
        if "failure" in each
    ]


def _factor(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _ms(milliseconds: float) -> str:
    """Three significant digits."""
    digits = 0 if milliseconds >= 100 else 1 if milliseconds >= 10 else 2
    return f"{milliseconds:.{digits}f}"
