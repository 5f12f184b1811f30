"""The standard library's ``multiprocessing.shared_memory``: the same module, under this path too."""

import sys
from multiprocessing import shared_memory

sys.modules[__name__] = shared_memory
