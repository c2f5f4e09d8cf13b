"""The files of a run's folder as they are read again: what they hold, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from experiments import records
from experiments.schemas import SUMMARY

NO_RUN = f"holds no {records.SUMMARY_NAME}: no folder of a run"
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's takes a tenth of the time


def read_summary(folder: Path) -> tuple[dict[str, Any], str | None]:
    """`summary.json` as far as it can be trusted, and what is wrong with it."""
    path = folder / records.SUMMARY_NAME
    try:
        summary = records.read_json(path)
    except FileNotFoundError:
        if (folder / records.CONFIG_NAME).exists():
            return {}, f"holds no {records.SUMMARY_NAME}: its trial was never started"
        return {}, NO_RUN
    except (OSError, ValueError) as error:
        return {}, f"{records.SUMMARY_NAME} cannot be read ({error})"
    version = summary.get("record_version")
    if version == records.RECORD_VERSION:
        wrong = [field.name for field in SUMMARY if not fits(summary.get(field.name), field.type)]
        known = {key: value for key, value in summary.items() if key not in wrong}
        return known, f"{records.SUMMARY_NAME} has a strange {wrong[0]}" if wrong else None
    known = {key: value for key, value in summary.items() if key in ("record_version", "status", "scheduler")}
    if isinstance(version, int) and version > records.RECORD_VERSION:
        way_out = "read it with a newer version of this project"
    else:
        way_out = "run it again, or read it with the version that wrote it"
    return known, f"has version {version} of the records, this one reads {records.RECORD_VERSION}; {way_out}"


def read_scalars(folder: Path, names: Iterable[str]) -> tuple[dict[str, Any], str | None]:
    """Single values at the top of the configuration, and what is wrong with it.

    Read line by line, since parsing the whole file takes most of the time that many runs take: `write_config` writes
    each of these on a line of its own.
    """
    try:
        text = (folder / records.CONFIG_NAME).read_text()
        lines = re.findall(rf"^(?:{'|'.join(names)}): .*$", text, re.MULTILINE)
        return yaml.load("\n".join(lines), _YAML) or {}, None
    except (OSError, ValueError, yaml.YAMLError) as error:
        words = " ".join(str(error).split())
        return {}, f"{records.CONFIG_NAME} cannot be read ({words})"


def read_config(folder: Path) -> tuple[dict[str, Any], str | None]:
    """The configuration, and what is wrong with it."""
    try:
        config = yaml.load((folder / records.CONFIG_NAME).read_bytes(), _YAML)
    except (OSError, yaml.YAMLError) as error:
        words = " ".join(str(error).split())
        return {}, f"{records.CONFIG_NAME} cannot be read ({words})"
    if not isinstance(config, dict):
        return {}, f"{records.CONFIG_NAME} holds no configuration"
    return config, None


_KINDS = {pa.string(): (str,), pa.bool_(): (bool,), pa.int64(): (int,), pa.float64(): (int, float)}


def fits(value: Any, kind: pa.DataType) -> bool:
    """Whether a value can stand in a column; None can in any."""
    is_truth = isinstance(value, bool) and kind != pa.bool_()
    return value is None or (isinstance(value, _KINDS[kind]) and not is_truth)
