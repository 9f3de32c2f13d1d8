"""The documentation: it builds, and its reference has everything that the code has."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from repository import REPOSITORY

from anyseg_core.runtime.field_docs import field_docs
from anyseg_ros.pipeline import parameters

DOCS = REPOSITORY / "docs"
LONGEST_PAGE_WORDS = 1500
LONG_PAGES = {"decisions.md"}
"""A log; the pages of `reference/` are tables."""
LONGEST_README_WORDS = 800


@dataclasses.dataclass
class Inner:
    size: int = 3
    """In pixels."""


@dataclasses.dataclass
class Outer(Inner):
    borrowed: int = Inner.size
    none: int = 0
    own: str = ""
    """Over
    two lines."""


def test_docstrings_of_fields_are_found() -> None:
    assert field_docs(Outer) == {"size": "In pixels.", "borrowed": "In pixels.", "own": "Over two lines."}


def test_every_parameter_of_the_node_is_described() -> None:
    defaults = parameters.Parameters()
    parts = [next(iter(defaults.modalities.values())), *(getattr(defaults, name) for name in parameters.SECTIONS)]
    missing = [
        f"{type(part).__name__}.{field.name}"
        for part in parts
        for field in dataclasses.fields(part)
        if field.name not in field_docs(type(part))
    ]
    assert not missing


def test_every_key_of_a_training_file_is_described() -> None:
    pytest.importorskip("torch", reason="training needs torch")
    from anyseg_core.training.config import TrainConfig

    missing = [
        f"{model.__name__}.{key}"
        for model in [TrainConfig, *(m for i in TrainConfig.model_fields.values() for m in models_in(i.annotation))]
        for key in model.model_fields
        if key not in field_docs(model) and not (key == "name" and model is not TrainConfig)  # which names the table
    ]
    assert not missing


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def test_the_page_of_topics_has_every_topic_and_service_of_the_node() -> None:
    page = (DOCS / "reference" / "topics.md").read_text()
    sources = "".join(path.read_text() for path in (REPOSITORY / "anyseg_ros" / "node").glob("*.py"))
    created = set(re.findall(r'"(~/[\w/]+|/diagnostics)"', sources))
    assert len(created) > 8
    assert not [name for name in created if f"`{name}" not in page]


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_no_page_is_too_long_to_be_read(page: Path) -> None:
    is_reference = "reference" in page.parts or page.name in LONG_PAGES
    assert is_reference or len(page.read_text().split()) <= LONGEST_PAGE_WORDS


def test_the_readme_fits_on_a_screen_and_a_half() -> None:
    assert len((REPOSITORY / "README.md").read_text().split()) <= LONGEST_README_WORDS


def test_every_page_is_in_the_menu() -> None:
    menu = (REPOSITORY / "mkdocs.yml").read_text()
    pages = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert not [page for page in pages if page not in menu]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the site needs pip install -e '.[docs]'")
    pytest.importorskip("mkdocstrings", reason="the site needs pip install -e '.[docs]'")
    pytest.importorskip("torch", reason="the reference of training needs torch")
    # Not --quiet: what it does not say, --strict does not count.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "expected_rate_hz" in (tmp_path / "reference" / "parameters" / "index.html").read_text()
    assert "anyseg replay" in (tmp_path / "reference" / "cli" / "index.html").read_text()
