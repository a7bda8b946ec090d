"""The paper's tables as experiments; ``python -m experiments --help``."""
