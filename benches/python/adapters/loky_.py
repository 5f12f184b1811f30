"""loky: a process pool with the interface of the standard library's executor, hardened against crashes."""

from loky import ProcessPoolExecutor
