"""How tests have XLA compile what runs once."""

QUICKLY = {"compiler_options": {"xla_backend_optimization_level": 0}}
"""For `jax.jit`. XLA's own passes are as ever; LLVM's, which take longer than a test runs, few."""
