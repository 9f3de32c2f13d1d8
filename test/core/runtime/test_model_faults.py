"""Faults of settings in a user's words."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from anyseg_core.runtime.model_faults import faults_of


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _First(_Strict):
    name: Literal["first"] = "first"
    subsets: int = 1


class _Second(_Strict):
    name: Literal["second"] = "second"
    weight: float = 1.0


class _Optim(_Strict):
    lr: float = 0.1
    within: _Optim | None = None

    @field_validator("lr")
    @classmethod
    def _positive(cls, value: float) -> float:
        if value <= 0:
            raise ValueError(f"lr must be positive, not {value}")
        return value


class _Settings(_Strict):
    optim: _Optim = _Optim()
    method: Annotated[_First | _Second, Field(discriminator="name")] = _First()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"optim": {"lrr": 1}}, "optim.lrr: unknown setting; did you mean optim.lr?"),
        ({"lr": 1}, "lr: unknown setting; did you mean optim.lr?"),
        ({"optm": {}}, "optm: unknown setting; did you mean optim?"),
        ({"method": {"name": "first", "subset": 1}}, "did you mean method.subsets?"),
        ({"optim": {"lr": -1}}, "optim.lr: lr must be positive, not -1.0"),
        ({"zzzzzz": 1}, "zzzzzz: unknown setting"),
    ],
)
def test_a_fault_names_the_setting_and_what_was_meant(settings: dict[str, object], line: str) -> None:
    with pytest.raises(ValidationError) as error:
        _Settings.model_validate(settings)
    (told,) = faults_of(error.value, _Settings)
    assert told.endswith(line)
    assert "Value error" not in told
    assert "Extra inputs" not in told
