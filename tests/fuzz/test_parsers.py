"""No byte that a stranger sends does more than be refused (CONTRACT §3).

Some hundred examples of each parser, always the same; ``python -m benchmarks.fuzz`` draws others.
"""

import pytest

from tests.fuzz.drawing import drawn
from tests.fuzz.properties import PROPERTIES

EXAMPLES = 300
MOST_S = 1.0
"""CPU seconds that one example may take; most take well under a millisecond."""


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_parser_refuses_or_understands(name: str) -> None:
    """Nothing but a refusal of ours is raised, what is returned is finite, and it ends soon."""
    assert drawn(name, EXAMPLES).slowest_s < MOST_S
