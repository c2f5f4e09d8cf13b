"""Hydra's and OmegaConf's errors as one line that says what there is."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.validation import CONFIGS, GROUPS, KEYS, options


def explain(error: Exception, overrides: Sequence[str], keys: Sequence[str] = (*KEYS, "experiment")) -> str:
    """One line for an error that Hydra raised while it composed `overrides` or made the folder of a sweep.

    `keys` are those of the command's configuration.
    """
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        detail = [line for line in str(error).splitlines() if not line.startswith(("See ", "Error parsing"))]
        return f"'{error.override}' is not KEY=VALUE: {' '.join(detail)}"
    if isinstance(error, OSError):
        return f"{error.filename} cannot be written ({error.strerror}); choose another folder with output="
    text = str(error)
    if text.startswith("Ambiguous value"):
        argument = _quoted(text)
        return f"{argument}: several values need -m (one trial for each)"
    if text.startswith(("Could not override", "Could not append", "Could not delete")):
        return _unknown_key(_quoted(text), overrides, keys)
    first = next(iter(text.splitlines()), type(error).__name__)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return first
    return f"the configuration cannot be composed: {first}; HYDRA_FULL_ERROR=1 shows where"


def _missing_option(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file or "").rpartition("/")
    if not group:
        return str(error).splitlines()[0]
    there_are = ", ".join(error.options or []) or "none"
    return f"unknown {group} '{name}'; there are: {there_are}"


def _unknown_key(key: str, overrides: Sequence[str], keys: Sequence[str]) -> str:
    head, _, rest = key.partition(".")
    if head in GROUPS and head in keys and rest:
        chosen = _chosen(head, overrides)
        if (head, chosen) == ("scheduler", "own"):
            return f"unknown key '{key}'; a field of your own policy is added with a plus: +{key}=..."
        return f"unknown key '{key}'; {head}={chosen} has: {', '.join(_parameters(head, chosen)) or 'none'}"
    return f"unknown key '{key}'; there are: {', '.join(keys)}"


def _chosen(group: str, overrides: Sequence[str]) -> str:
    """The option of a group that the command line, or else the primary config, chose."""
    for override in reversed(overrides):
        key, _, value = override.lstrip("+").partition("=")
        if key == group:
            return value.split(",")[0]
    defaults = OmegaConf.load(CONFIGS / "run.yaml").defaults
    return next(str(item[group]) for item in defaults if isinstance(item, DictConfig) and group in item)


def _parameters(group: str, option: str) -> list[str]:
    """The keys of an option, with those of the options that it builds on."""
    if option not in options(group):
        return []
    config = OmegaConf.to_container(OmegaConf.load(CONFIGS / group / f"{option}.yaml"))
    assert isinstance(config, dict)
    bases = [base for base in config.pop("defaults", []) if isinstance(base, str) and base != "_self_"]
    inherited = [key for base in bases for key in _parameters(group, base)]
    own = [f"{group}.{key!s}" for key in config if not str(key).startswith("_")]
    return list(dict.fromkeys(inherited + own))


def _quoted(text: str) -> str:
    found = re.search(r"'([^']*)'", text)
    return found.group(1) if found else text
