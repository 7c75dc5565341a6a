"""A browser for the tests of viewers and of their saved pages."""

import pytest
from browser_lab import open_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as context:
        yield context
