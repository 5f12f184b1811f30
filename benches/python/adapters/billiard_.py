"""billiard: Celery's fork of multiprocessing."""

import billiard


def ProcessPool(workers):
    """Its Pool."""
    return billiard.Pool(workers)
