from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from experiments import records
from experiments.records import OutputFolderError, new_run_dir, write_json, write_whole


def test_two_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    folders = {new_run_dir(tmp_path / "a" / "b", "trials", "eager", "lenet") for _ in range(10)}
    assert len(folders) == 10
    assert all(folder.parent == tmp_path / "a" / "b" / "trials" and folder.is_dir() for folder in folders)


def test_a_name_cannot_leave_the_output_folder(tmp_path: Path) -> None:
    folder = new_run_dir(tmp_path, "../../etc", "a/b", "c d")
    assert folder.parent.parent == tmp_path
    assert folder.name.split("-")[1:3] == ["a_b", "c_d"]


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(OutputFolderError, match=r"runs/trials.* cannot be written \(Not a directory\)"):
        new_run_dir(tmp_path / "runs", "trials", "eager", "lenet")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "summary.json"
    write_whole(path, b"old")

    def full_disk(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_number_in_json_becomes_null(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": float("nan"), "b": [float("inf"), np.float32(0.5), np.int64(3)], "c": {"d": None}})
    assert json.loads(path.read_text()) == {"a": None, "b": [None, 0.5, 3], "c": {"d": None}}


def test_a_configuration_comes_back_as_it_was(tmp_path: Path) -> None:
    config = {
        "epochs": 5,
        "name": None,
        "scheduler": {"_target_": "schedulers.EagerEnergy", "wait_weight": 1.0},
    }
    records.write_config(tmp_path, config)
    assert records.read_config(tmp_path) == config


def test_leftovers_of_a_killed_trial_go_away(tmp_path: Path) -> None:
    (tmp_path / ".tasks.parquet.17.tmp").touch()
    (tmp_path / "config.yaml").touch()
    records.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
