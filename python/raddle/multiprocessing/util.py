"""The standard library's ``multiprocessing.util``: the same module, under this path too."""

import sys
from multiprocessing import util

sys.modules[__name__] = util
