"""The standard library's ``multiprocessing.process``: the same module, under this path too."""

import sys
from multiprocessing import process

sys.modules[__name__] = process
