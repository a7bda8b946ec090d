"""ShuffleNet V1 (arXiv 1707.01083) and what it is compared with, in JAX and Flax NNX.

The public names are in `__init__.pyi`. Each is imported when it is first asked for, because JAX and
Flax take a second, and what only looks at files, as most commands of `experiments` do, needs
neither.
"""

import lazy_loader

# No module of this package may have the name of something in that list.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
