"""Committed results, and what makes them of committed records."""
