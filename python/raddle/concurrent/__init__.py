"""``raddle.concurrent.futures``, at the standard library's path."""

__all__: list[str] = []
