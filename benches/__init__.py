"""Benches of raddle: `python -m benches.python` (see benches/README.md)."""
