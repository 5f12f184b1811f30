"""The standard library's ``multiprocessing.synchronize``: the same module, under this path too."""

import sys
from multiprocessing import synchronize

sys.modules[__name__] = synchronize
