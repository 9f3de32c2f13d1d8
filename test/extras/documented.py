"""The commands that README and docs give in their code blocks, and in which environment each of them runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in (
            "index",
            "robot",
            "data",
            "fault_injection",
            "fleet",
            "replay",
            "training",
            "weights",
            "jetson/engine",
        )
    ),
)


@dataclass(frozen=True)
class Rule:
    """How commands that begin with some words are run."""

    words: str
    extras: str
    """Extras of setup.py that the environment has and nothing else, such as `ros,sim`; empty: what a robot has."""
    options: tuple[str, ...] = ()
    """Added to make the input tiny."""
    is_node: bool = False
    """Runs until Ctrl-C."""
    why_not: str = ""
    """A reason not to run it here."""


TINY_DATASET = ("--train-drives", "1", "--val-drives", "1", "--frames", "2", "--workers", "1")
OWN_TOPICS = "names a user's own topics and files"
TUTORIAL = "needs what the commands before it have made: test/project/test_tutorials.py runs them in their order"
RULES = (
    Rule("anyseg doctor", "ros"),
    Rule("anyseg inspect", "replay"),
    Rule("anyseg access-policy", "ros,replay"),
    Rule("anyseg inject kinds", ""),
    Rule("anyseg inject check", ""),
    Rule("anyseg inject bag", "replay"),
    Rule("anyseg inject live", "ros,replay", is_node=True),
    Rule("anyseg simulate bag drive", "sim,replay", why_not="test/extras/run.py makes the bag of all others with it"),
    Rule("anyseg simulate live", "ros,sim", ("--duration-s", "1"), is_node=True),
    Rule("anyseg simulate dataset", "sim", TINY_DATASET),
    Rule("anyseg run --params-file my_vehicle.yaml", "ros", why_not=OWN_TOPICS),
    Rule("anyseg run --student students/my_robot", "ros", why_not=TUTORIAL),
    Rule("anyseg preset", ""),
    Rule("anyseg replay my_bag --student students/my_robot", "replay", why_not=TUTORIAL),
    Rule("anyseg run", "ros", is_node=True),
    Rule("anyseg watch", "ros", ("--port", "0"), is_node=True),
    Rule("anyseg play my_bag --clock --loop", "ros,replay", is_node=True),
    Rule("anyseg play", "ros,replay"),
    Rule("anyseg replay-live", "ros,replay"),
    Rule("anyseg replay my_bag --map", "replay", why_not=OWN_TOPICS),
    Rule("anyseg replay bags/*.mcap --cluster --address", "fleet", why_not="needs a cluster at that address"),
    Rule("anyseg replay bags/*.mcap --cluster", "fleet", ("--workers", "1")),
    Rule("anyseg replay", "replay"),
    Rule("anyseg train my_robot.yaml", "train", why_not=TUTORIAL),
    Rule("anyseg evaluate runs/my_robot", "train", why_not=TUTORIAL),
    Rule("anyseg export runs/my_robot", "train", why_not=TUTORIAL),
    Rule("anyseg train", "train"),
    Rule("anyseg adapt", "train", why_not="needs a trained run and one's own recordings"),
    Rule("anyseg export runs/mine/run", "train", why_not="the run is what `anyseg adapt` before it has made"),
    Rule("anyseg export", "train"),
    Rule("anyseg import-weights anyseg_core/students/vehicle_sim", "train"),
    Rule("anyseg import-weights", "train", why_not="needs a file of published weights"),
    Rule("anyseg data kitti-bag", "replay", why_not="needs a drive of KITTI"),
    Rule("anyseg demo --student street --bag", "ros,replay", why_not="needs the bag of a drive of KITTI"),
    Rule("anyseg data from-bag drive1", "replay", why_not=OWN_TOPICS),
    Rule("anyseg data from-bag", "replay"),
    Rule("anyseg data check", "train", ("--kind", "folder", "--split", "train")),
    Rule("anyseg bench gpu", "gpu", why_not="needs a GPU"),
)
"""The first that fits a command is taken."""
IN_TEXT = ("anyseg data from-bag drive my_data", "anyseg data check my_data", "anyseg doctor")
"""Commands that README gives in a sentence, with everything that they need."""


def commands() -> Iterator[tuple[str, str]]:
    """(page, command line) of every `anyseg` command in the code blocks, and of `IN_TEXT`; each once a page."""
    for page in PAGES:
        text = (REPOSITORY / page).read_text()
        blocks = re.findall(r"^ *```bash\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
        lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
        split = (shlex.split(line, comments=True) for line in lines)
        found = [shlex.join(words) for words in split if words[:1] == ["anyseg"]]
        found += [line for line in IN_TEXT if page == "README.md" and f"`{line}`" in text]
        yield from ((page, line.replace("'bags/*.mcap'", "bags/*.mcap")) for line in dict.fromkeys(found))


def rule_of(command: str) -> Rule:
    """The rule for a command. Raises LookupError where there is none."""
    for rule in RULES:
        if f"{command} ".startswith(f"{rule.words} "):
            return rule
    raise LookupError(f"{command}: no rule in test/extras/documented.py says where it runs")
