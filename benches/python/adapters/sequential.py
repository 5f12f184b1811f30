"""No pool at all: the caller does one thing after the other. For rows that show what threads are good for."""
