"""Which results are this code's own."""

GENERATION = 1
"""Raised by every change after which a run of the same configuration ends elsewhere.

Rounding apart: another order of additions makes another run, but of the same distribution. What was
trained by another generation is no result of this code.
"""
