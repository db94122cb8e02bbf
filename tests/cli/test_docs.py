"""The page about the command line is that of the commands."""

from __future__ import annotations

from kconvert.cli.docs import page
from tests.conftest import ROOT


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == page(), "run: make docs"
