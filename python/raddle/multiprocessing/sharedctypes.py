"""The standard library's ``multiprocessing.sharedctypes``: the same module, under this path too."""

import sys
from multiprocessing import sharedctypes

sys.modules[__name__] = sharedctypes
