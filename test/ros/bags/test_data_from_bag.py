"""A bag becomes a data set: simulated with labels, read back as training reads it; and bags that cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from anyseg_core.data.folder import Folder
from anyseg_core.runtime.input_images import encode_frame
from anyseg_core.runtime.model_card import find_student, load_card
from anyseg_core.runtime.sensors import DEFAULT_SENSORS
from anyseg_core.sim.recorded_drive import RecordedDrive
from anyseg_ros.bags.to_folder import FolderOptions, NothingToWriteError, write_folder
from anyseg_ros.cli import app

pytest.importorskip("embreex", reason="the simulator needs pip install anyseg_ros[sim]")

SIZE = (96, 128)


@pytest.fixture(scope="module")
def drive() -> RecordedDrive:
    from anyseg_core.sim.drive import DriveConfig
    from anyseg_core.sim.recorded_drive import record_drive
    from anyseg_core.sim.weather import Weather

    return record_drive(DriveConfig(5, Weather.parse("sun"), 0.4, 10.0), 1)


@pytest.fixture(scope="module")
def bag(drive: RecordedDrive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from anyseg_core.sim.bag_writer import write_bag

    folder = tmp_path_factory.mktemp("bags") / "drive_5"
    write_bag(folder, drive, drive.rig())
    return folder


def test_samples_are_what_the_sensors_gave(drive: RecordedDrive, bag: Path, tmp_path: Path) -> None:
    card = load_card(find_student("vehicle_sim"), verify=False)
    written = write_folder(bag, tmp_path, card, FolderOptions(every_s=0.2))
    assert (written.samples, written.labelled, written.incomplete, written.rejected) == (2, 2, 0, 0)
    assert written.modalities == DEFAULT_SENSORS
    dataset = Folder(tmp_path, "train", SIZE)
    assert dataset.inputs[:3] == card.inputs[:3]
    as_the_student_has_it = card.inputs[3].encoding.model_copy(update={"drawn_at": None})
    assert dataset.inputs[3].encoding == as_the_student_has_it  # but for the size at which points are drawn
    assert len(dataset) == 2
    for index, number in enumerate((0, 2)):
        frame, sample = drive.frame(number), dataset[index]
        for image, spec in zip(sample.images, dataset.inputs, strict=True):
            expected = encode_frame(frame.frames[spec.modality], spec, SIZE, drive.rig()).astype(int)
            assert (np.abs(image.astype(int) - expected) > 2).mean() < 0.01, spec.modality
        rows = (np.arange(SIZE[0]) * frame.labels.shape[0]) // SIZE[0]
        cols = (np.arange(SIZE[1]) * frame.labels.shape[1]) // SIZE[1]
        assert (sample.labels == frame.labels[np.ix_(rows, cols)]).mean() > 0.99


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def test_the_commands_from_bag_and_check(bag: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="anyseg data check needs the extra [train]")
    done = run("data", "from-bag", bag, tmp_path / "mine", "--every-s", "0.1")
    assert done.exit_code == 0, done.output
    assert "4 samples of camera, depth, event, lidar" in done.output
    sheet = tmp_path / "sheet.png"
    words = ["data", "check", tmp_path / "mine", "--split", "train", "--sheet", sheet, "--size", 64, 96]
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert "0 of 4 samples are broken" in done.output
    assert (tmp_path / "sheet_train.png").is_file()
    next((tmp_path / "mine").rglob("*_event.png")).write_bytes(b"no png")
    done = run(*words)
    assert done.exit_code == 1
    assert "1 of 4 samples are broken" in done.output
    assert "_event.png is damaged" in done.output


def test_moments_without_every_sensor_are_left_out_and_counted(bag: Path, tmp_path: Path) -> None:
    card = load_card(find_student("vehicle_sim"), verify=False)
    two = write_folder(bag, tmp_path, card, FolderOptions(every_s=0.1, mapping=("depth:=", "event:=")))
    assert [str(m) for m in two.modalities] == ["camera", "lidar"]
    empty = tuple(f"{modality!s}:=" for modality in DEFAULT_SENSORS)
    with pytest.raises(NothingToWriteError, match="has no topic of"):
        write_folder(bag, tmp_path / "none", card, FolderOptions(mapping=empty))
    assert not (tmp_path / "none").exists()


def test_a_bag_without_labels_gives_frames_to_label(bag: Path, tmp_path: Path) -> None:
    done = run("data", "from-bag", bag, tmp_path, "--every-s", "0.1", "--map", "labels:=")
    assert done.exit_code == 0, done.output
    output = " ".join(done.output.split())  # lines break where the path ends
    assert "0 of them labelled" in output
    assert "no label image was found; if one of /ground_truth/labels holds them: --map labels:=TOPIC" in output
    assert len(list(tmp_path.rglob("*_camera.png"))) == 4
    assert not list(tmp_path.rglob("*_label.png"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["from-bag", "nowhere", "out"], "no bag at nowhere"),
        (["check", "nowhere"], "no data set that is known"),
        (["check", ".", "--sheet", "sheet.pngg"], "its name must end in .png or .jpg"),
        (["check", ".", "--kind", "sonar"], "kind: 'sonar' is unknown; known kinds of data sets: deliver"),
    ],
)
def test_what_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    pytest.importorskip("torch", reason="anyseg data check needs the extra [train]")
    monkeypatch.chdir(tmp_path)
    done = run("data", *words)
    assert done.exit_code == 2
    assert says in done.output + done.stderr


def test_a_topic_given_as_a_folder_of_labels_is_answered_with_the_right_option(bag: Path, tmp_path: Path) -> None:
    done = run("data", "from-bag", bag, tmp_path, "--labels", "/ground_truth/labels")
    assert done.exit_code == 2
    assert "is not a folder; a topic of label images is named with --map labels:=TOPIC" in done.output + done.stderr
