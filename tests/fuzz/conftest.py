import fuzzing
import pytest


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A folder that each try fills anew; how they ended is printed (`-s` shows it)."""
    fuzzing.ENDINGS.clear()
    yield fuzzing.emptied(tmp_path_factory.mktemp("fuzz") / "data")
    print(f"\n{sum(fuzzing.ENDINGS.values())} inputs: {dict(fuzzing.ENDINGS)}")


def pytest_itemcollected(item):
    item.add_marker("slow")
