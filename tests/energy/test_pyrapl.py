import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import IO, Any, final

import pytest

from energy import CounterTrack, Flag, ReadError, SourceUnavailableError
from energy.pyrapl import PyRaplSource
from tests.energy.powercap import DRAM_RANGE_UJ, add_zone, set_uj


@final
class PyRapl:
    """Answers like the module `pyRAPL`: what `Sensor().energy()` gives, or what it raises."""

    def __init__(self, answer: list[float] | Exception, start: Exception | None = None) -> None:
        self.answer = answer
        self.start = start

    def Sensor(self) -> Any:
        if self.start is not None:
            raise self.start
        return self

    def energy(self) -> list[float]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def read_uj(source: PyRaplSource) -> dict[str, int]:
    return {reading.channel: reading.raw for reading in source.read()}


def test_package_and_dram_of_every_socket_are_channels_of_the_total() -> None:
    with PyRaplSource(PyRapl([10.0, 20.0, 30.0, 40.0])) as source:
        assert read_uj(source) == {
            "pyrapl:package-0": 10,
            "pyrapl:package-0/dram": 20,
            "pyrapl:package-1": 30,
            "pyrapl:package-1/dram": 40,
        }
        assert {(c.component, c.in_total, c.unit_j) for c in source.channels} == {
            ("package", True, 1e-6),
            ("dram", True, 1e-6),
        }


def test_what_pyrapl_marks_with_minus_one_is_no_channel() -> None:
    with PyRaplSource(PyRapl([10.0, -1, -1, -1, 30.0, -1])) as source:
        assert list(read_uj(source)) == ["pyrapl:package-0", "pyrapl:package-2"]


def test_a_wrap_that_pyrapl_cannot_tell_is_missing_joules_and_no_negative_number() -> None:
    library = PyRapl([262143328000.0, -1])
    with PyRaplSource(library) as source:
        track = CounterTrack(source.channels[0])
        track.add(source.read()[0])
        library.answer = [500.0, -1]
        step = track.add(source.read()[0])
    assert (step.joules, step.flags) == (None, Flag.RESET)


@pytest.mark.parametrize("value", [-1, -5.0, float("nan"), float("inf"), 1e300, 0.5])
def test_what_is_no_amount_is_an_error_and_the_other_channels_are_kept(value: float) -> None:
    library = PyRapl([10.0, 20.0])
    with PyRaplSource(library) as source:
        library.answer = [value, 21.0]
        with pytest.raises(ReadError, match="package-0: pyRAPL answers") as caught:
            source.read()
    assert [(reading.channel, reading.raw) for reading in caught.value.readings] == [
        ("pyrapl:package-0/dram", 21)
    ]


def test_a_socket_that_vanishes_is_an_error() -> None:
    library = PyRapl([10.0, 20.0, 30.0, 40.0])
    with PyRaplSource(library) as source:
        library.answer = [11.0, 21.0]
        with pytest.raises(ReadError) as caught:
            source.read()
    assert list(caught.value.failed) == ["pyrapl:package-1", "pyrapl:package-1/dram"]


@pytest.mark.parametrize(
    "error", [OSError(22, "Invalid argument"), ValueError("could not convert string to float")]
)
def test_a_reading_that_raises_is_a_gap_in_every_channel(error: Exception) -> None:
    library = PyRapl([10.0, 20.0])
    with PyRaplSource(library) as source:
        library.answer = error
        with pytest.raises(ReadError, match=type(error).__name__) as caught:
            source.read()
        assert list(caught.value.failed) == ["pyrapl:package-0", "pyrapl:package-0/dram"]
        library.answer = [11.0, 21.0]
        assert len(source.read()) == 2


def test_a_closed_counter_is_unavailable_with_the_command_that_opens_it() -> None:
    refused = PermissionError(
        13, "Permission denied", "/sys/class/powercap/intel-rapl/intel-rapl:0/energy_uj"
    )
    with pytest.raises(SourceUnavailableError, match="root only") as caught:
        PyRaplSource(PyRapl([], start=refused)).open()
    assert "allow-rapl" in caught.value.remedy


@pytest.mark.parametrize(
    "library", [PyRapl([], start=IndexError("list index")), PyRapl([-1, -1]), PyRapl([])]
)
def test_a_machine_that_pyrapl_does_not_read_is_unavailable(library: PyRapl) -> None:
    with pytest.raises(SourceUnavailableError, match="energy=rapl"):
        PyRaplSource(library).open()


def test_a_source_that_is_not_open_reads_nothing() -> None:
    with pytest.raises(ReadError, match="not open"):
        PyRaplSource(PyRapl([1.0, 2.0])).read()


@pytest.fixture
def pyrapl_below(tmp_path: Path) -> Iterator[ModuleType]:
    """The real package, which reads `/sys` only, with `tmp_path` in front of its paths."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its regular expressions
        pytest.importorskip("pyRAPL", reason="python -m pip install pyRAPL")
        from pyRAPL import device_api

    def below(path: str) -> str:
        return f"{tmp_path}{path}"

    def open_below(path: str, mode: str = "r") -> IO[Any]:
        return Path(below(path)).open(mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_api, "open", open_below, raising=False)
        exists = SimpleNamespace(path=SimpleNamespace(exists=lambda path: os.path.exists(below(path))))
        patch.setattr(device_api, "os", exists)
        import pyRAPL

        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ResourceWarning
            )  # it leaves the files of the topology to the collector
            yield pyRAPL
            gc.collect()


def tree(root: Path, packages: list[tuple[str, str, int]]) -> Path:
    """A `/sys` with these zones (number, name, package id), one CPU each."""
    cpus = root / "sys/devices/system/cpu"
    cpus.mkdir(parents=True)
    (cpus / "present").write_text(f"0-{len(packages) - 1}\n" if len(packages) > 1 else "0\n")
    powercap = root / "sys/class/powercap/intel-rapl"
    for cpu, (number, name, package) in enumerate(packages):
        topology = cpus / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{package}\n")
        zone = add_zone(powercap, f"intel-rapl:{number}", name, 1000 + cpu)
        add_zone(zone, f"intel-rapl:{number}:0", "dram", 2000 + cpu, DRAM_RANGE_UJ)
    return powercap


def test_the_real_pyrapl_reads_two_sockets(pyrapl_below: ModuleType, tmp_path: Path) -> None:
    powercap = tree(tmp_path, [("0", "package-0", 0), ("1", "package-1", 1)])
    before = len(os.listdir("/proc/self/fd"))
    with PyRaplSource(pyrapl_below) as source:
        set_uj(powercap, "intel-rapl:1", 5000)
        assert read_uj(source) == {
            "pyrapl:package-0": 1000,
            "pyrapl:package-0/dram": 2000,
            "pyrapl:package-1": 5000,
            "pyrapl:package-1/dram": 2001,
        }
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_the_real_pyrapl_fails_on_a_number_that_is_none(pyrapl_below: ModuleType, tmp_path: Path) -> None:
    powercap = tree(tmp_path, [("0", "package-0", 0)])
    with PyRaplSource(pyrapl_below) as source:
        set_uj(powercap, "intel-rapl:0", "")
        with pytest.raises(ReadError, match="ValueError"):
            source.read()


@pytest.mark.parametrize(
    "zones",
    [
        [("0", "package-0-die-0", 0), ("1", "package-0-die-1", 0)],
        [("0", "package-0", 0), ("2", "package-1", 1)],
        [(f"{number:x}", f"package-{number}", number) for number in range(11)],
    ],
    ids=["dies", "an index gap", "a hexadecimal number"],
)
def test_trees_that_the_real_pyrapl_does_not_understand_are_unavailable(
    pyrapl_below: ModuleType, tmp_path: Path, zones: list[tuple[str, str, int]]
) -> None:
    tree(tmp_path, zones)
    with pytest.raises(SourceUnavailableError, match="choose energy=rapl"):
        PyRaplSource(pyrapl_below).open()


def test_a_machine_without_rapl_is_unavailable_to_the_real_pyrapl(
    pyrapl_below: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(SourceUnavailableError, match="pyRAPL cannot read this machine"):
        PyRaplSource(pyrapl_below).open()
