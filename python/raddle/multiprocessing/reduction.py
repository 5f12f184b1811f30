"""The standard library's ``multiprocessing.reduction``: the same module, under this path too."""

import sys
from multiprocessing import reduction

sys.modules[__name__] = reduction
