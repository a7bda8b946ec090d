"""The benchmark: ours beside the plain form and other frameworks' forms of the same networks.

`python -m experiments bench`. A workload is timed in a process of its own, in which all peers take
turns; `workloads` says what is timed, a `peer_*` file how one framework does it.
"""
