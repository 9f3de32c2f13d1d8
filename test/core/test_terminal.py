"""What commands show on a terminal, and do not write into a file."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from anyseg_core import terminal
from anyseg_core.terminal import errors_reported, progress_bar, set_verbosity, tracked


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal's output."""
    text = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=text, force_terminal=True, width=120))
    return text


def test_a_bar_appears_with_the_first_report(screen: io.StringIO) -> None:
    with progress_bar("frames") as report:
        assert screen.getvalue() == ""
        report(3, 4, note="loss 0.5")
    assert "frames" in screen.getvalue()
    assert "3/4" in screen.getvalue()
    assert "loss 0.5" in screen.getvalue()


def test_an_error_before_the_first_report_leaves_nothing(screen: io.StringIO) -> None:
    with pytest.raises(ValueError, match="bad"), progress_bar("frames"):
        raise ValueError("bad")
    assert screen.getvalue() == ""


def test_bars_within_a_bar_share_the_terminal(screen: io.StringIO) -> None:
    with progress_bar("training", 2) as report:
        for done in range(2):
            report(done)
            assert list(tracked("abc", "evaluating", 3)) == ["a", "b", "c"]
        report(2)
    assert "training" in screen.getvalue()
    assert "evaluating" in screen.getvalue()


@pytest.mark.parametrize("show", [True, False])
def test_nothing_goes_into_a_file(monkeypatch: pytest.MonkeyPatch, show: bool) -> None:
    text = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=text))
    assert list(tracked([1, 2], "samples", 2, show=show)) == [1, 2]
    assert text.getvalue() == ""


def test_quiet_shows_no_bar_and_verbose_the_traceback(
    screen: io.StringIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)
    set_verbosity(verbose=True, quiet=True)
    try:
        assert list(tracked([1], "samples", 1)) == [1]
        assert screen.getvalue() == ""
        with pytest.raises(BaseException), errors_reported(ValueError):  # noqa: B017, PT011  # typer's own
            raise ValueError("the cause")
    finally:
        set_verbosity(verbose=False, quiet=False)
    errors = capsys.readouterr().err
    assert "Traceback" in errors
    assert "error: the cause" in errors
