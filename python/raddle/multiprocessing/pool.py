"""The standard library's ``multiprocessing.pool``: the same module, under this path too."""

import sys
from multiprocessing import pool

sys.modules[__name__] = pool
