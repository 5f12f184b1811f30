"""The standard library's ``multiprocessing.managers``: the same module, under this path too."""

import sys
from multiprocessing import managers

sys.modules[__name__] = managers
