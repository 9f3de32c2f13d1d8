"""What a shell completes: students, weathers and scenarios. Nothing is imported here that takes long to load."""

from __future__ import annotations

from pathlib import Path

STUDENTS = Path(__file__).parent / "students"
SCENARIOS = Path("config") / "injections"
"""Where a checkout has its schedules of injections."""
WEATHERS = ("sun", "cloud", "night", "rain", "fog")


def complete_students(incomplete: str) -> list[str]:
    """The bundled students that begin so, and folders."""
    names = sorted(card.parent.name for card in STUDENTS.glob("*/model.json"))
    return [name for name in names if name.startswith(incomplete)] + _paths(incomplete, "/")


def complete_weathers(incomplete: str) -> list[str]:
    """The weathers that begin so."""
    return [name for name in WEATHERS if name.startswith(incomplete)]


def complete_scenarios(incomplete: str) -> list[str]:
    """The schedules of a checkout whose name or path begins so, and other YAML files and folders."""
    shipped = [str(path) for path in sorted(SCENARIOS.glob("*.yaml"))]
    found = [path for path in shipped if path.startswith(incomplete) or Path(path).name.startswith(incomplete)]
    return list(dict.fromkeys([*found, *_paths(incomplete, ".yaml", "/")]))


def _paths(incomplete: str, *endings: str) -> list[str]:
    """Files and folders that begin so and end with one of `endings`; a folder ends with a slash."""
    folder = Path(incomplete if incomplete.endswith("/") else Path(incomplete).parent)
    try:
        names = [f"{path}/" if path.is_dir() else str(path) for path in sorted(folder.iterdir())]
    except OSError:
        return []
    return [name for name in names if name.startswith(incomplete) and name.endswith(endings)]
