"""``raddle.concurrent.futures``, at the standard library's path."""
