"""A StarPU that something else provides: a Nix shell, a cluster's modules, an installation by hand.

`STARPU_PREFIXES` names a folder whose entries `native` and `simgrid` are, or link to, its prefixes.
They are looked at through pkg-config, as the bindings do, and never written to.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from getstarpu.apt import MINIMUM, version_numbers
from getstarpu.build import LIMIT_OPTIONS, LIMITS, MODE, VARIANT_OPTIONS, definitions
from getstarpu.process import GetStarpuError


@dataclass(frozen=True)
class Given:
    """One variant that was found good."""

    variant: str
    version: str
    prefix: Path


def given(root: Path, variants: Sequence[str], *, all_of_them: bool) -> list[Given]:
    """Those of the variants that `root` has, each checked.

    Without `all_of_them` one is enough, since who only trains needs no simulation.

    Raises:
        GetStarpuError: one that is asked for is not there, or will not do.
    """
    there = [variant for variant in variants if (root / variant).is_dir()]
    missing = [variant for variant in variants if variant not in there]
    if not there or (missing and all_of_them):
        raise GetStarpuError(
            f"STARPU_PREFIXES is {str(root)!r}, which has no folder {' or '.join(missing)};"
            " link the prefixes of StarPU there, or unset it to build StarPU here"
        )
    return [check(variant, root / variant) for variant in there]


def check(variant: str, prefix: Path) -> Given:
    """Look at one prefix: StarPU >= 1.4, the limits at least those of a build here, the same mode.

    Raises:
        GetStarpuError: pkg-config does not find it there, or it is another StarPU than needed.
    """
    version = _pkg_config(prefix, "--modversion")
    found_in = Path(_pkg_config(prefix, "--variable=pcfiledir")).resolve()
    if not found_in.is_relative_to(prefix.resolve()):
        raise GetStarpuError(f"{prefix} has no lib/pkgconfig/starpu-1.4.pc (pkg-config finds {found_in}'s)")
    if version_numbers(version) < MINIMUM:
        raise GetStarpuError(
            f"{prefix} is StarPU {version}, but {'.'.join(map(str, MINIMUM))} or newer is needed"
        )
    header = Path(_pkg_config(prefix, "--variable=starpu_includedir")) / "starpu_config.h"
    try:
        defined = definitions(header)
    except OSError as error:
        raise GetStarpuError(
            f"{header} cannot be read ({error.strerror}): StarPU's headers are needed"
        ) from error
    wrong = _unsuitable(defined, variant)
    if wrong:
        options = " ".join((*LIMIT_OPTIONS, *VARIANT_OPTIONS[variant]))
        raise GetStarpuError(f"the {variant} StarPU in {prefix} has {wrong}; configure it with {options}")
    return Given(variant, version, prefix)


def _unsuitable(defined: dict[str, str], variant: str) -> str | None:
    """The first setting that will not do, in words."""
    for name, least in LIMITS.items():
        value = defined.get(name, "none")
        if not value.isdigit() or int(value) < least:
            return f"{name} = {value}, at least {least} is needed"
    for name, wanted in MODE[variant].items():
        if defined.get(name) != wanted:
            return f"{name} = {defined.get(name)}, expected {wanted}"
    return None


def _pkg_config(prefix: Path, option: str) -> str:
    folders = [str(prefix / "lib" / "pkgconfig"), *filter(None, [os.environ.get("PKG_CONFIG_PATH")])]
    environment = {**os.environ, "PKG_CONFIG_PATH": os.pathsep.join(folders)}
    try:
        done = subprocess.run(
            ["pkg-config", option, "starpu-1.4"], env=environment, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise GetStarpuError("pkg-config is not installed; it tells whether a given StarPU will do") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise GetStarpuError(f"pkg-config finds no StarPU 1.4 in {prefix}: {reason}")
    return done.stdout.strip()
