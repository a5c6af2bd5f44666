"""What holds for every test."""

import gc
import os

from hypothesis import HealthCheck, settings

# A machine that is busy makes generation slow; that is no finding. No deadline either: a benchmark is no test.
settings.register_profile("countersign", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("countersign")

# Many tests serve at the same time, and its default is one port.
os.environ.setdefault("COUNTERSIGN_ADMIN", "off")


def pytest_collection_finish() -> None:
    """Exempt what pytest itself holds from searches for cycles: one takes longer than a check may."""
    gc.collect()
    gc.freeze()
