import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from energy import (
    SOURCES,
    Absent,
    Channel,
    EnergySession,
    NvmlSource,
    OutsideTotal,
    Present,
    Source,
    SourceUnavailableError,
    availability,
    select_sources,
)
from tests.energy.hwmon_tree import add_chip
from tests.energy.sources import CORE, DRAM, GPU, PACKAGE, HandSource

PERF = Channel("perf:package-0", "package", True, 2.0**-32, None, 0.001)
BOARD = Channel("hwmon:VDD_IN", "board", True, 1e-6, None, 0.5, integrated=True, longest_gap_s=0.5)
RAPL = HandSource("rapl", {PACKAGE: 0})
NO_NVML = HandSource("nvml", {GPU: 0}, available=False)

Makers = dict[str, Callable[[], Source]]
MAKERS: Makers = {"rapl": lambda: RAPL, "nvml": lambda: NO_NVML}


def makers(*sources: HandSource) -> Makers:
    return {source.name: (lambda source=source: source) for source in sources}


def in_total(sources: tuple[Source, ...]) -> list[str]:
    with EnergySession(sources, rate_hz=10) as session:
        return [channel.name for channel in session.channels.values() if channel.in_total]


def test_auto_takes_what_can_be_read_and_says_why_the_rest_is_absent() -> None:
    selection = select_sources("auto", MAKERS)
    assert selection.sources == (RAPL,)
    assert selection.absent == (Absent("nvml", "it is unplugged", "plug it in"),)
    assert RAPL.opened == 0


def test_auto_without_any_source_is_no_error() -> None:
    selection = select_sources("auto", {"nvml": lambda: NO_NVML})
    assert selection.sources == ()
    assert [absent.name for absent in selection.absent] == ["nvml"]


def test_auto_takes_one_source_for_each_component_and_never_two() -> None:
    rapl = HandSource("rapl", {PACKAGE: 0, DRAM: 0, CORE: 0})
    perf, board, gpu = (
        HandSource("perf", {PERF: 0}),
        HandSource("hwmon", {BOARD: 0}),
        HandSource("nvml", {GPU: 0}),
    )
    selection = select_sources("auto", makers(gpu, board, perf, rapl))
    assert [source.name for source in selection.sources] == ["rapl", "nvml"]
    assert in_total(selection.sources) == ["rapl:package-0", "rapl:package-0/dram", "nvml:gpu-0"]
    assert {absent.name: absent.why for absent in selection.absent} == {
        "perf": "all that it counts (package) is counted already",
        "hwmon": "all that it counts (board) is counted already",
    }


def test_auto_takes_the_next_best_source_where_the_best_is_closed() -> None:
    rapl, perf = HandSource("rapl", {PACKAGE: 0}, available=False), HandSource("perf", {PERF: 0})
    assert in_total(select_sources("auto", makers(rapl, perf)).sources) == ["perf:package-0"]


def test_auto_adds_a_component_that_the_better_source_lacks() -> None:
    dram = Channel("perf:package-0/dram", "dram", True, 2.0**-32, None, 0.001)
    sources = select_sources("auto", makers(RAPL, HandSource("perf", {PERF: 0, dram: 0}))).sources
    assert in_total(sources) == ["rapl:package-0", "perf:package-0/dram"]


def test_a_board_covers_its_gpu_where_no_package_is_counted() -> None:
    board, gpu = HandSource("hwmon", {BOARD: 0}), HandSource("nvml", {GPU: 0})
    assert in_total(select_sources("auto", makers(board, gpu)).sources) == ["hwmon:VDD_IN"]


def test_a_source_without_a_total_is_not_taken_by_itself() -> None:
    rails = HandSource("hwmon", {Channel("hwmon:VDD_SOC", "rail", False, 1e-6, None, 0.5): 0})
    selection = select_sources("auto", makers(rails))
    assert (selection.sources, [absent.why for absent in selection.absent]) == ((), ["it has no total"])


@pytest.mark.parametrize(
    ("asked", "counted"),
    [
        ("rapl,perf", ["rapl:package-0"]),
        ("perf,rapl", ["perf:package-0"]),
        ("hwmon,rapl,nvml", ["hwmon:VDD_IN"]),
        ("rapl,hwmon,nvml", ["rapl:package-0", "nvml:gpu-0"]),
    ],
)
def test_of_two_sources_that_cover_the_same_the_first_counts_and_both_are_recorded(
    asked: str, counted: list[str]
) -> None:
    known = makers(
        HandSource("rapl", {PACKAGE: 0}),
        HandSource("perf", {PERF: 0}),
        HandSource("hwmon", {BOARD: 0}),
        HandSource("nvml", {GPU: 0}),
    )
    sources = select_sources(asked, known).sources
    assert [source.name for source in sources] == asked.split(",")
    assert in_total(sources) == counted
    with sources[-1] as last:
        assert len(last.read()) == len(last.channels)


def test_rapl_is_read_through_perf_events_where_powercap_is_closed_and_the_record_says_so() -> None:
    rapl, perf = HandSource("rapl", {PACKAGE: 0}, available=False), HandSource("perf", {PERF: 0})
    selection = select_sources("rapl", makers(rapl, perf))
    assert selection.sources == (perf,)
    assert selection.absent == (Absent("rapl", "it is unplugged; read through perf", "plug it in"),)
    assert select_sources("rapl,perf", makers(rapl, perf)).sources == (perf,)


def test_rapl_that_neither_powercap_nor_perf_events_open_is_an_error_of_both() -> None:
    rapl, perf = (
        HandSource("rapl", {PACKAGE: 0}, available=False),
        HandSource("perf", {PERF: 0}, available=False),
    )
    with pytest.raises(
        SourceUnavailableError, match=r"'rapl'.*unplugged; nor by perf: it is unplugged.*plug it in"
    ):
        select_sources("rapl", makers(rapl, perf))


def test_a_source_asked_for_by_name_that_is_not_there_is_an_error_with_its_remedy() -> None:
    with pytest.raises(SourceUnavailableError, match=r"unplugged.*To mend it: plug it in"):
        select_sources(["rapl", "nvml"], MAKERS)


def test_only_what_is_asked_for_is_taken() -> None:
    assert select_sources(["rapl"], MAKERS).sources == (RAPL,)
    assert select_sources("rapl, rapl", MAKERS).sources == (RAPL,)
    assert select_sources([], MAKERS).sources == ()


def test_an_unknown_source_is_an_error_that_lists_what_there_is() -> None:
    with pytest.raises(ValueError, match="there is no energy source 'wattmeter'; there are auto, rapl, nvml"):
        select_sources(["wattmeter"], MAKERS)


def test_a_source_takes_its_settings(tmp_path: Path) -> None:
    add_chip(tmp_path / "hwmon", "hwmon0", "ina226", {"power1_input": 1_000_000, "label": "VIN_12V"})
    settings = {"hwmon": {"root": tmp_path / "hwmon", "total_rails": ["VIN_12V"]}}
    assert in_total(select_sources("hwmon", settings=settings).sources) == ["hwmon:VIN_12V"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wattmeter": {}}, "names no source with 'wattmeter'"),
        ({"hwmon": {"rail": 1}}, "hwmon takes root, total_rails"),
    ],
)
def test_a_setting_that_no_source_has_is_an_error(settings: dict[str, dict[str, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_sources("auto", settings=settings)


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_that_was_closed_again_can_go_to_another_process(name: str) -> None:
    source = SOURCES[name]()
    with contextlib.suppress(SourceUnavailableError):
        source.open()
    source.close()
    for sent in (source, OutsideTotal(source, {"package"})):
        assert not sent.in_process
        assert pickle.loads(pickle.dumps(sent)).name == name


def test_the_doctor_is_told_of_every_source_and_a_broken_driver_is_only_absent() -> None:
    class Broken:
        NVMLError = ConnectionError

        def nvmlInit(self) -> None:
            raise ZeroDivisionError("driver")

    present, absent, broken = availability({**MAKERS, "broken": lambda: NvmlSource(Broken())})
    assert present == Present("rapl", (PACKAGE,))
    assert absent == Absent("nvml", "it is unplugged", "plug it in")
    assert isinstance(broken, Absent)
    assert broken.why == "ZeroDivisionError: driver"


def test_this_machine_can_be_asked_whatever_it_has() -> None:
    found = availability()
    assert [state.name for state in found] == list(SOURCES)
    assert all(state.remedy for state in found if isinstance(state, Absent))
    assert all(state.channels for state in found if isinstance(state, Present))
