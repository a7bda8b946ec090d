"""Weights from and to PyTorch: state dicts of other code, read without running any of it."""
