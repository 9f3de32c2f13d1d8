"""Every command in README and docs has an environment in which `make test-extras` runs it, or a reason why not."""

from __future__ import annotations

import shlex

import pytest
from declared_requirements import declared_setup
from extras import documented
from extras.run import ALONE, PROBES, environments

COMMANDS = list(documented.commands())


def test_there_are_commands_on_every_page() -> None:
    assert {page for page, _ in COMMANDS} == set(documented.PAGES)


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_command_has_an_environment_that_is_made(page: str, command: str) -> None:
    rule = documented.rule_of(command)
    assert rule.why_not or rule.extras in environments()


def test_no_rule_is_for_nothing() -> None:
    used = {documented.rule_of(command) for _, command in COMMANDS}
    assert not [rule.words for rule in documented.RULES if rule not in used]


def test_every_extra_is_tried_alone_with_a_command() -> None:
    extras = set(declared_setup()["extras_require"]) - {"gpu", "test", "dev", "docs"}
    assert set(ALONE) - {""} == extras
    run = {rule.extras for _, command in COMMANDS if not (rule := documented.rule_of(command)).why_not}
    assert extras <= run | set(PROBES)


def test_a_command_without_a_rule_is_named() -> None:
    with pytest.raises(LookupError, match=r"anyseg dance: no rule"):
        documented.rule_of("anyseg dance")


def test_what_the_pages_install_are_extras() -> None:
    known = set(declared_setup()["extras_require"])
    for page in documented.PAGES:
        text = (documented.REPOSITORY / page).read_text()
        for line in text.split("`"):
            if line.startswith("pip install") and "[" in line:
                named = shlex.split(line, comments=True)[-1].partition("[")[2].rstrip("]")
                assert set(named.split(",")) <= known, f"{page}: {line}"
