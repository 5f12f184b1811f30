"""pebble: a process pool whose tasks have timeouts."""

import pebble


class ProcessPoolExecutor(pebble.ProcessPool):
    """submit() as the standard library's executor has it; pebble's own takes a timeout first."""

    def submit(self, function, *args):
        return self.schedule(function, args)
