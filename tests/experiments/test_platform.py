"""Simulated nodes from their YAML."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dahl import ops
from dahl.costs import cost_key
from dahl.starpu import Worker
from experiments.node_fields import PlatformError
from experiments.platform import SimulatedNode
from experiments.validation import CONFIGS


def fields(name: str = "cpu8_gpu2") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((Path(CONFIGS) / "platform" / f"{name}.yaml").read_text())
    return {key: value for key, value in loaded.items() if key not in ("_target_", "simulated")}


CORE = Worker(0, "CPU 0", "cpu", 0, 0, "core")
CARD = Worker(1, "CUDA 0", "cuda", 0, 1, "card")


def test_eight_cores_and_two_cards_become_a_platform_of_eight_cores_and_two_gpus() -> None:
    platform = SimulatedNode(**fields()).platform
    assert platform.cpu_classes == ("core",) * 8
    assert [gpu.worker_class for gpu in platform.gpus] == ["card", "card"]
    assert platform.gpus[0].link.bandwidth_bytes_per_s == 12e9
    assert platform.gpus[0].link.latency_s == pytest.approx(8e-6)


def test_a_task_takes_its_launch_and_the_longer_of_arithmetic_and_traffic() -> None:
    """A product of 16x676 by 676x10: 2 * 16 * 676 * 10 flops; on the core at 40 GFLOP/s or 8 GB/s."""
    costs = SimulatedNode(**fields()).costs
    shapes = {"x": (16, 676), "w": (10, 676), "y": (16, 10)}
    flops, traffic = 2 * 16 * 676 * 10, 4 * (16 * 676 + 10 * 676 + 16 * 10)
    for worker, rate, bandwidth, launch in ((CORE, 40e9, 8e9, 0.5e-6), (CARD, 3e12, 400e9, 5e-6)):
        expected = launch + max(flops / rate, traffic / bandwidth)
        assert costs.length_s(worker, ops.LINEAR, shapes, {}) == pytest.approx(expected, rel=0.01)


def test_watts_come_from_the_worker_class_and_nobody_polls() -> None:
    model = SimulatedNode(**fields()).power_model([CORE, CARD])
    assert [(worker.idle_w, worker.busy_w) for worker in model.workers] == [(1.0, 9.0), (12.0, 90.0)]
    assert model.base_w == 40.0
    assert model.stays_awake_s == 0


def changed(path: str, value: Any) -> dict[str, Any]:
    described = copy.deepcopy(fields())
    *way, last = path.split("/")
    at = described
    for key in way:
        at = at[key]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return described


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("base_w", -1.0, "base_w must be a number of 0 or more, got -1.0"),
        ("cpu/core/gflop_per_s/conv", -25.0, "core: gflop_per_s.conv must be a number above 0, got -25.0"),
        ("cpu/core/gflop_per_s/conv", None, "gflop_per_s takes conv, gemm, memory, got gemm, memory"),
        ("cpu/core/gflop_per_s", None, "core: gflop_per_s must be given"),
        ("cpu/core/launch_us", 0.0, "launch_us must be a number above 0, got 0.0"),
        ("cpu/core/busy_w", 0.5, "busy_w 0.5 is below idle_w 1.0"),
        ("cpu/core/count", 1.5, "count must be whole, got 1.5"),
        ("cpu/core/watts", 5.0, "core: unknown field watts; there are: busy_w, busy_w_by_kind, count"),
        ("cpu/core/link", {}, "core: unknown field link"),
        ("gpu/card/link", None, "card: link must be given"),
        ("gpu/card/link/gbyte_per_s", 0, "card, link: gbyte_per_s must be a number above 0, got 0"),
        ("gpu/card/link/joule_per_gbyte", -0.1, "joule_per_gbyte must be a number of 0 or more, got -0.1"),
        ("peer_link", {"gbyte_per_s": 1.0}, "peer_link: latency_us must be given"),
        ("cpu/core/busy_w_by_kind", {"conv": 0.5}, "core: busy_w_by_kind.conv 0.5 is below idle_w 1.0"),
        ("cpu/core/busy_w_by_kind", {"fft": 5.0}, "busy_w_by_kind takes conv, gemm, memory, got fft"),
        ("cpu/core/parked_w", 2.0, "core: parked_w 2.0 is above idle_w 1.0"),
        ("cpu/core/seconds", {"relu_4d/1x1": 0.0}, "seconds[relu_4d/1x1] must be a number above 0, got 0.0"),
        ("cpu/core/count", 2, "no CPU worker is left for cnn_evaluation,"),
        ("park_after_s", -1.0, "park_after_s must be a number of 0 or more, got -1.0"),
        ("noise", float("nan"), "noise must be a number of 0 or more, got nan"),
        ("gpu/card/memory_gbyte", "8", "memory_gbyte must be a number above 0, got '8'"),
    ],
)
def test_a_field_that_describes_no_machine_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(PlatformError, match="platform cpu8_gpu2") as caught:
        SimulatedNode(**changed(path, value))
    assert message in str(caught.value)


def test_more_gpus_than_cores_to_drive_them_are_refused() -> None:
    with pytest.raises(PlatformError, match="8 cores, and 9 GPUs take one each"):
        SimulatedNode(**changed("gpu/card/count", 9))


def test_a_measured_length_goes_before_the_rates() -> None:
    shapes = {"x": (16, 676), "w": (10, 676), "y": (16, 10)}
    key = cost_key(ops.LINEAR, shapes, {})
    rates = SimulatedNode(**fields()).costs.length_s(CORE, ops.LINEAR, shapes, {})
    both = SimulatedNode(**changed("cpu/core/seconds", {key: 0.25})).costs
    assert both.length_s(CORE, ops.LINEAR, shapes, {}) == 0.25
    wider = {"x": (32, 676), "w": (10, 676), "y": (32, 10)}
    assert both.length_s(CORE, ops.LINEAR, wider, {}) > rates


def test_a_class_may_have_a_measured_table_and_no_rates() -> None:
    described = changed("cpu/core/seconds", {"relu_4d/1x1x1x1/1x1x1x1": 1e-6})
    for name in ("gflop_per_s", "gbyte_per_s", "launch_us"):
        del described["cpu"]["core"][name]
    costs = SimulatedNode(**described).costs
    assert math.isnan(costs.length_s(CORE, ops.LINEAR, {"x": (16, 676), "w": (10, 676), "y": (16, 10)}, {}))


def test_busy_watts_may_differ_by_kind_of_kernel() -> None:
    described = changed("cpu/core/busy_w_by_kind", {"gemm": 11.0})
    core, card = SimulatedNode(**described).power_model([CORE, CARD]).workers
    assert core.busy_w_by_codelet["linear"] == 11.0
    assert "relu_4d" not in core.busy_w_by_codelet
    assert not card.busy_w_by_codelet


def test_joules_of_a_byte_are_those_of_the_links_on_its_way() -> None:
    """2 J/GB to either card: 4 J/GB between the cards, or the peer link's own."""
    described = changed("gpu/card/link/joule_per_gbyte", 2.0)
    second = Worker(2, "CUDA 1", "cuda", 1, 2, "card")
    through_host = SimulatedNode(**described).link_joule_per_byte([CORE, CARD, second])
    expected = np.array([[0, 2, 2], [2, 0, 4], [2, 4, 0]]) * 1e-9
    np.testing.assert_allclose(through_host, expected)
    peer = {"gbyte_per_s": 20.0, "latency_us": 2.0, "joule_per_gbyte": 0.5}
    direct = SimulatedNode(**described | {"peer_link": peer})
    assert direct.link_joule_per_byte([CORE, CARD, second])[1, 2] == pytest.approx(0.5e-9)
    assert direct.platform.peer_link is not None
    assert not SimulatedNode(**fields()).transfers_cost_joules


def test_free_links_move_a_gigabyte_in_a_microsecond_and_at_no_joules() -> None:
    described = changed("gpu/card/link/joule_per_gbyte", 50.0)
    peer_link = {"gbyte_per_s": 25.0, "latency_us": 2.0, "joule_per_gbyte": 10.0}
    node = SimulatedNode(**described, peer_link=peer_link, free_links=True)
    links = [node.platform.peer_link, *(gpu.link for gpu in node.platform.gpus)]
    assert [link and link.latency_s + 1e9 / link.bandwidth_bytes_per_s for link in links] == [
        pytest.approx(1e-6, rel=2e-3)
    ] * 3
    assert not node.transfers_cost_joules
    assert not node.link_joule_per_byte([CORE, CARD]).any()


@pytest.mark.parametrize("field", ["free_links", "allocated"])
def test_free_links_and_allocated_memory_are_asked_for_by_true_or_false(field: str) -> None:
    with pytest.raises(PlatformError, match=f"{field} must be true or false, got 1"):
        SimulatedNode(**fields(), **{field: 1})


def test_the_node_with_high_idle_power_draws_what_its_file_and_the_documentation_say() -> None:
    """300 W, 14 cores of 4 W that drive no GPU, and two GPUs of 80 W."""
    node = SimulatedNode(**fields("high_idle"))
    own = node.platform
    cores = [Worker(i, f"CPU {i}", "cpu", i, 0, "core") for i in range(len(own.cpu_classes) - len(own.gpus))]
    cards = [Worker(14 + i, f"CUDA {i}", "cuda", i, 1 + i, "card") for i in range(len(own.gpus))]
    model = node.power_model([*cores, *cards])
    assert model.base_w + sum(worker.idle_w for worker in model.workers) == 516.0
