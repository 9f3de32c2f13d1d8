"""Pages of the reference, made from the code whenever the site is built (mkdocs `hooks`)."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

from anyseg_core.injection import INJECTION_KINDS
from anyseg_core.runtime import sensors
from anyseg_core.runtime.field_docs import field_docs
from anyseg_core.runtime.health.thresholds import CheckConfig
from anyseg_core.training.config import TrainConfig
from anyseg_ros.cli import app
from anyseg_ros.inject.tables import parameter_text
from anyseg_ros.pipeline import parameters


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {"parameters": parameters_page, "training": training_page, "cli": cli_page, "injections": injections_page}
    for name, page in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    return files


def _table(columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += [
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows
    ]
    return "\n".join(lines) + "\n"


_INJECTIONS_INTRODUCTION = """Made from the code; the same as `anyseg inject kinds`. *Named by*: the check of
`runtime/health` that should name it, any of those listed; none where no check of one sensor alone can tell it from
a scene. Some depend on the sensor: dead rows of an event image, dead lasers and events that are missing from an
image of counts stay unnoticed. `anyseg bench faults` measures it.

On frames (`Injector`, the benchmarks, training) there is no encoding that could be wrong: `truncate` and
`wrong_encoding` make a frame unreadable, and `corrupt` hits rows of pixels or points. On messages `corrupt` hits
the payload, so a JPEG or an event packet breaks as a whole. 16UC1 depth has no NaN: `nan_depth` gives 0 there.

"""


# --- parameters of segmentation_node ----------------------------------------------------------------------------------


def parameters_page() -> str:
    """Every parameter with default, range and meaning, by section."""
    defaults = parameters.Parameters()
    parts = ["# Parameters of `segmentation_node`\n", _PARAMETERS_INTRODUCTION]
    camera = next(iter(defaults.modalities.values()))
    sections: dict[str, Any] = {"modalities.<sensor>": camera}
    sections |= {prefix: getattr(defaults, name) for name, prefix in parameters.SECTIONS.items()}
    for prefix, part in sections.items():
        parts.append(f"## `{prefix}`\n")
        parts.append(_table(("parameter", "default", "range", "meaning"), _fields(part)))
    parts.append("## Checks: `faults.<fault>.<field>`\n")
    checks = ((f"`{fault}`", _value(c.threshold), c.fail_count, c.recover_count, c.recover_time_s, c.latch, c.enabled)
              for fault, c in defaults.faults.items())  # fmt: skip
    parts.append(
        _table(("fault", "threshold", "fail_count", "recover_count", "recover_time_s", "latch", "enabled"), checks)
    )
    docs = field_docs(CheckConfig)
    parts.append(
        _table(("field", "meaning"), [(f"`{f.name}`", docs.get(f.name, "")) for f in dataclasses.fields(CheckConfig)])
    )
    return "\n".join(parts)


_PARAMETERS_INTRODUCTION = """Made from the code. `config/vehicle.yaml` has all of them with their defaults, ready to be
copied; a sensor that is not named as its kind has a block of its own, `modalities.thermal: {kind: camera, topic: ...}`.
A name that is mistyped is refused with the one that was probably meant.
"""


def _fields(part: Any) -> Iterator[tuple[object, ...]]:
    docs, ranges = field_docs(type(part)), getattr(type(part), "RANGES", {})
    for f in dataclasses.fields(part):
        limits = ranges.get(f.name)
        meaning = _CONSTANT.sub(_values_of, docs.get(f.name, ""))
        yield f"`{f.name}`", f"`{_value(getattr(part, f.name))}`", _range(limits), meaning


_CONSTANT = re.compile(r"`[\w.]*?([A-Z_]{4,})`")


def _values_of(match: re.Match[str]) -> str:
    """The values of a constant that a description names, where `parameters.py` or `sensors.py` has it."""
    known = getattr(parameters, match[1], None) or getattr(sensors, match[1], None)
    return ", ".join(f"`{value}`" for value in known) if isinstance(known, (tuple, Mapping)) else match[0]


def _range(limits: Any) -> str:
    if limits is None:
        return ""
    low, high = tuple(limits)[:2]
    return f"{_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return f"{int(value)}" if float(value).is_integer() and abs(value) < 1e9 else f"{value:g}"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    return "true" if value is True else "false" if value is False else str(value) if value != "" else '""'


# --- keys of a training configuration ---------------------------------------------------------------------------------


def training_page() -> str:
    """Every key of a training file, section by section; the keys of `method` by its name."""
    parts = ["# Keys of a training file\n", _TRAINING_INTRODUCTION, "## top level\n", _model_table(TrainConfig)]
    for name, info in TrainConfig.model_fields.items():
        models = _models_in(info.annotation)
        parts += [f"## `{name}`\n"] if models else []
        for model in models:
            parts += [f"### `{_name_of(model)}`\n", _first_line(model)] if len(models) > 1 else []
            parts.append(_model_table(model))
    return "\n".join(parts)


_TRAINING_INTRODUCTION = """Made from the code. A key that is mistyped is refused with the one that was probably meant;
`--set group.key=value` overrides any of them, and `extends: other.yaml` takes over another file's.
"""


def _name_of(model: type[BaseModel]) -> str:
    """The value of the key that tells the models of a union apart, else the model's own name."""
    info = model.model_fields.get("name") or model.model_fields.get("kind")
    return str(info.default) if info is not None and isinstance(info.default, str) else model.__name__


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().partition("\n")[0] + "\n"


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _model_table(model: type[BaseModel]) -> str:
    docs = field_docs(model)
    rows = [(f"`{name}`", _default(info), docs.get(name, "")) for name, info in model.model_fields.items()]
    return _table(("key", "default", "meaning"), rows)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    return "its own table" if isinstance(value, BaseModel) else f"`{_value(value)}`"


# --- command line -----------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Every command with its arguments and options."""
    return "# The command `anyseg`\n\nMade from the code; the same as `anyseg COMMAND --help`.\n\n" + "\n".join(
        _command(("anyseg",), get_command(app))
    )


def _command(path: tuple[str, ...], command: Any) -> Iterator[str]:
    """Of a click command (typer may bring a click of its own)."""
    below = getattr(command, "commands", {})
    for name, child in below.items():
        yield from _command((*path, name), child)
    if below:
        return
    yield f"## `{' '.join(path)}`\n\n{(command.help or '').strip()}\n"
    rows = [_option(parameter) for parameter in command.params if parameter.name != "help"]
    yield _table(("argument or option", "default", "meaning"), rows) if rows else ""


def _option(parameter: Any) -> tuple[str, str, str]:
    names = ", ".join(parameter.opts) if parameter.param_type_name == "option" else (parameter.name or "").upper()
    default = (
        "required"
        if parameter.required
        else ""
        if parameter.default in (None, (), [], False)
        else f"`{parameter.default}`"
    )
    return f"`{names}`", default, str(getattr(parameter, "help", "") or "")


# --- injections -------------------------------------------------------------------------------------------------------


def injections_page() -> str:
    """Every kind of injection with its sensors and parameters."""
    rows = [
        (f"`{name}`", ", ".join(kind.modalities), ", ".join(itertools.starmap(parameter_text, kind.parameters.items())),
         kind.imitates, ", ".join(kind.expected))
        for name, kind in INJECTION_KINDS.items()
    ]  # fmt: skip
    introduction = _INJECTIONS_INTRODUCTION
    return f"# Kinds of injections\n\n{introduction}" + _table(
        ("kind", "sensors", "parameters", "imitates", "named by"), rows
    )
