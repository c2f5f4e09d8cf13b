from collections.abc import Callable

import pytest

from energy import (
    Absent,
    NvmlSource,
    Present,
    RaplSource,
    Source,
    SourceUnavailableError,
    availability,
    select_sources,
)
from tests.energy.sources import GPU, PACKAGE, HandSource

RAPL = HandSource("rapl", {PACKAGE: 0})
NO_NVML = HandSource("nvml", {GPU: 0}, available=False)
MAKERS: dict[str, Callable[[], Source]] = {"rapl": lambda: RAPL, "nvml": lambda: NO_NVML}


def test_auto_takes_what_can_be_read_and_says_why_the_rest_is_absent() -> None:
    selection = select_sources("auto", MAKERS)
    assert selection.sources == (RAPL,)
    assert selection.absent == (Absent("nvml", "it is unplugged", "plug it in"),)
    assert RAPL.opened == 0


def test_auto_without_any_source_is_no_error() -> None:
    selection = select_sources("auto", {"nvml": lambda: NO_NVML})
    assert selection.sources == ()
    assert [absent.name for absent in selection.absent] == ["nvml"]


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


def test_the_doctor_is_told_of_every_source_and_a_broken_driver_is_only_absent() -> None:
    class Broken:
        NVMLError = ConnectionError

        def nvmlInit(self) -> None:
            raise ZeroDivisionError("driver")

    makers: dict[str, Callable[[], Source]] = {**MAKERS, "broken": lambda: NvmlSource(Broken())}
    present, absent, broken = availability(makers)
    assert present == Present("rapl", (PACKAGE,))
    assert absent == Absent("nvml", "it is unplugged", "plug it in")
    assert isinstance(broken, Absent)
    assert broken.why == "ZeroDivisionError: driver"


def test_this_machine_can_be_asked_whatever_it_has() -> None:
    found = availability()
    assert [state.name for state in found] == [RaplSource.name, NvmlSource.name]
    assert all(state.remedy for state in found if isinstance(state, Absent))
    assert all(state.channels for state in found if isinstance(state, Present))
