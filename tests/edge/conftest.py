"""What the tests of the edge share."""

from typing import cast

import pytest
from countersign.edge.transport import Transport

from tests.edge.serving import TRANSPORTS


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Transport:
    """Each of the two: what holds for one holds for the other."""
    return cast("Transport", request.param)
