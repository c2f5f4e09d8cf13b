"""The nodes of configs/platform against their datasheets, and StarPU's own against its measurements."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest
import yaml

from dahl.starpu.build import prefix_root
from experiments.validation import CONFIGS

HYPOTHETICAL = {"cpu8", "gpu2", "cpu8_gpu2", "high_idle", "two_gpu_classes", "weak_cores_hot_gpu"}


def described(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((Path(CONFIGS) / "platform" / f"{name}.yaml").read_text())
    return loaded


REAL = sorted(
    path.stem
    for path in (Path(CONFIGS) / "platform").glob("*.yaml")
    if path.stem not in HYPOTHETICAL and yaml.safe_load(path.read_text())["simulated"]
)


def classes(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    node = described(name)
    yield from node["cpu"].items()
    yield from node["gpu"].items()


def test_there_are_ten_nodes_that_exist() -> None:
    assert len(REAL) >= 10
    assert {"mirage", "sirocco", "idgraf"} <= set(REAL)


@pytest.mark.parametrize("name", REAL)
def test_rates_and_watts_are_at_most_the_datasheets(name: str) -> None:
    for label, fields in classes(name):
        sheet = fields["datasheet"]
        count, units = fields["count"], sheet["units"]
        for kind, rate in fields["gflop_per_s"].items():
            assert count * rate <= units * sheet["gflop_per_s"], (label, kind)
        assert count * fields["gbyte_per_s"] <= units * sheet["gbyte_per_s"], label
        for watts in (fields["busy_w"], *fields["busy_w_by_kind"].values()):
            assert count * watts <= units * sheet["watts"], label


@pytest.mark.parametrize("name", REAL)
def test_links_are_at_most_what_their_kind_carries(name: str) -> None:
    node = described(name)
    links = [fields["link"] for fields in node["gpu"].values()]
    for link in [*links, *([node["peer_link"]] if "peer_link" in node else [])]:
        assert link["gbyte_per_s"] <= link["datasheet"]["gbyte_per_s"]


@pytest.mark.parametrize("name", REAL)
def test_every_figure_has_the_address_of_its_source(name: str) -> None:
    for _, fields in classes(name):
        address = urlparse(fields["datasheet"]["source"])
        assert address.scheme == "https"
        assert "." in address.netloc
        assert fields["datasheet"]["product"]


@pytest.mark.parametrize("name", sorted(HYPOTHETICAL))
def test_a_node_that_does_not_exist_says_so(name: str) -> None:
    text = (Path(CONFIGS) / "platform" / f"{name}.yaml").read_text()
    assert "hypothetical" in text
    assert "datasheet" not in text


def sampling() -> Path:
    return prefix_root() / "simgrid" / "share" / "starpu" / "perfmodels" / "sampling"


def measured_bus(host: str, what: str, gpus: int) -> np.ndarray:
    """StarPU's table between the host and its CUDA devices: MB/s or us."""
    lines = (sampling() / "bus" / f"{host}.{what}").read_text().splitlines()
    rows = [line.split()[: gpus + 1] for line in lines if not line.startswith("#")][: gpus + 1]
    return np.array(rows, np.float64)


def measured_gemm(host: str, codelet: str) -> tuple[float, float]:
    """GFLOP/s of a core and of the mean GPU on tiles of 960 x 960."""
    text = (sampling() / "codelets" / "45" / f"{codelet}.{host}").read_text()
    rates: dict[str, list[float]] = {"cpu": [], "cuda": []}
    arch = ""
    for line in text.splitlines():
        if line.startswith("# Model for "):
            arch = "cuda" if line.startswith("# Model for cuda") else "cpu"
        if line.startswith("24c84a50"):
            _, _, flops, us, *_ = line.split()
            rates[arch].append(float(flops) / float(us) / 1e3)
    return float(np.mean(rates["cpu"])), float(np.mean(rates["cuda"]))


@pytest.mark.parametrize(
    ("host", "codelet"),
    [("mirage", "starpu_sgemm_gemm"), ("sirocco", "starpu_sgemm_gemm"), ("idgraf", "chol_model_gemm")],
)
def test_starpus_own_nodes_are_as_it_measured_them(host: str, codelet: str) -> None:
    node = described(host)
    (core,), (card,) = node["cpu"].values(), node["gpu"].values()
    gpus = card["count"]
    config = (sampling() / "bus" / f"{host}.config").read_text().split("\n")
    assert int(config[1].split()[0]) == core["count"]
    assert int(config[2].split()[0]) == gpus
    bandwidth, latency = (measured_bus(host, what, gpus) for what in ("bandwidth", "latency"))
    apart = ~np.eye(gpus, dtype=bool)
    for link, cells in (
        (card["link"], lambda table: np.concatenate([table[0, 1:], table[1:, 0]])),
        (node["peer_link"], lambda table: table[1:, 1:][apart]),
    ):
        assert link["gbyte_per_s"] * 1e3 == pytest.approx(cells(bandwidth).mean(), rel=0.01)
        assert link["latency_us"] == pytest.approx(cells(latency).mean(), rel=0.01)
    on_core, on_card = measured_gemm(host, codelet)
    assert core["gflop_per_s"]["gemm"] == pytest.approx(on_core, rel=0.01)
    assert card["gflop_per_s"]["gemm"] == pytest.approx(on_card, rel=0.01)
