"""Compile time and peak memory of one workload, of one peer alone in a process."""

import os
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from experiments.bench import inputs
from experiments.bench.measure import in_a_line, in_fresh_process
from experiments.bench.peers import Peer
from experiments.bench.workloads import Workload


@dataclass(frozen=True)
class Cost:
    """What else one peer takes for one workload.

    Attributes:
      workload, peer: In words, and by name.
      build_seconds: From the weights to the end of the first step, less one step: compilation.
      peak_mib: Most memory of the process, less what it had before the step was built.
      failure: Why it was not measured, if it was not.
      form: The form that was measured.
    """

    workload: Workload
    peer: str
    build_seconds: float = 0.0
    peak_mib: float = 0.0
    failure: str = ""
    form: str = ""


def cost_of(workload: Workload, peer: Peer, form: str) -> Cost:
    """Measures one form of a peer; if none is named, the first that it has."""
    # A directory of its own: else PyTorch finds on disk what it compiled before.
    with TemporaryDirectory() as compiled:
        try:
            return in_fresh_process(workload.threads, _cost, workload, peer, form, compiled)
        except BrokenProcessPool:
            return Cost(workload, peer.name, failure="the process died", form=form)


def _cost(workload: Workload, peer: Peer, form: str, compiled: str) -> Cost:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = compiled
    peer.load()
    weights = inputs.network_of(workload)
    before = _memory("VmRSS")
    start = perf_counter()
    try:
        forms = peer.forms(workload, weights)
        form = form or next(iter(forms))
        run = forms[form]().run
        run()
        built = perf_counter()
        run()
        once = perf_counter() - built
    except Exception as error:  # whatever another framework may raise
        return Cost(workload, peer.name, failure=in_a_line(error), form=form)
    peak = _memory("VmHWM") - before
    return Cost(workload, peer.name, built - start - once, peak, form=form)


def _memory(field: str) -> float:
    """VmRSS, what the process has now, or VmHWM, the most it had, in MiB (`man proc_status`)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")
