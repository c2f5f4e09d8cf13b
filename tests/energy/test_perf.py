import errno
import os
import struct
import time
from pathlib import Path
from typing import final

import pytest

from energy import CounterTrack, EnergySession, ReadError, SourceUnavailableError
from energy.perf import KernelPerfEvent, PerfSource

SCALE = "2.3283064365386962890625e-10"
PKG, CORES, RAM, PSYS = 0x02, 0x01, 0x03, 0x05


def devices(root: Path, cpumask: str = "0", events: dict[str, int] | None = None) -> Path:
    """A tree like `/sys/devices` of a machine with 4 CPUs in each of 2 packages of 2 dies."""
    pmu = root / "power"
    (pmu / "events").mkdir(parents=True)
    (pmu / "type").write_text("23\n")
    (pmu / "cpumask").write_text(f"{cpumask}\n")
    for name, config in (events or {"energy-pkg": PKG, "energy-ram": RAM}).items():
        (pmu / "events" / name).write_text(f"event={config:#04x}\n")
        (pmu / "events" / f"{name}.unit").write_text("Joules\n")
        (pmu / "events" / f"{name}.scale").write_text(f"{SCALE}\n")
    for cpu in range(16):
        topology = root / "system" / "cpu" / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{cpu // 8}\n")
        (topology / "die_id").write_text(f"{cpu // 4 % 2}\n")
    return root


@final
class Kernel:
    """Opens events whose counts a test sets, by (config, CPU)."""

    def __init__(self, counts: dict[tuple[int, int], int | bytes | Exception] | None = None) -> None:
        self.counts = counts or {}
        self.refused: dict[int, OSError] = {}
        self.asked: list[tuple[int, int, int]] = []
        self.is_open = 0

    def open(self, kind: int, config: int, cpu: int) -> "Event":
        self.asked.append((kind, config, cpu))
        if config in self.refused:
            raise self.refused[config]
        self.is_open += 1
        return Event(self, (config, cpu))


@final
class Event:
    def __init__(self, kernel: Kernel, key: tuple[int, int]) -> None:
        self.kernel = kernel
        self.key = key

    def read(self) -> bytes:
        counts = self.kernel.counts.get(self.key, 0)
        if isinstance(counts, Exception):
            raise counts
        return counts if isinstance(counts, bytes) else struct.pack("=Q", counts)

    def close(self) -> None:
        self.kernel.is_open -= 1


def test_one_event_is_opened_for_each_socket_of_the_cpumask(tmp_path: Path) -> None:
    kernel = Kernel({(PKG, 0): 10, (RAM, 0): 20, (PKG, 8): 30, (RAM, 8): 40})
    with PerfSource(devices(tmp_path, "0,8"), opener=kernel.open) as source:
        assert {reading.channel: reading.raw for reading in source.read()} == {
            "perf:package-0": 10,
            "perf:package-0/dram": 20,
            "perf:package-1": 30,
            "perf:package-1/dram": 40,
        }
        assert kernel.asked == [(23, PKG, 0), (23, RAM, 0), (23, PKG, 8), (23, RAM, 8)]
    assert kernel.is_open == 0


def test_dies_of_one_package_are_named_as_powercap_names_them(tmp_path: Path) -> None:
    with PerfSource(devices(tmp_path, "0,4,8,12"), opener=Kernel().open) as source:
        assert [channel.name for channel in source.channels if channel.component == "package"] == [
            "perf:package-0-die-0",
            "perf:package-0-die-1",
            "perf:package-1-die-0",
            "perf:package-1-die-1",
        ]


def test_a_cpumask_may_hold_ranges(tmp_path: Path) -> None:
    for cpu, package in {0: 0, 1: 1}.items():
        path = devices(tmp_path, "0-1") if cpu == 0 else tmp_path
        (path / f"system/cpu/cpu{cpu}/topology/physical_package_id").write_text(f"{package}\n")
    with PerfSource(tmp_path, opener=Kernel().open) as source:
        assert [channel.device for channel in source.channels if channel.component == "package"] == [
            "perf event power/energy-pkg/ on CPU 0",
            "perf event power/energy-pkg/ on CPU 1",
        ]


def test_only_packages_and_dram_are_in_the_total(tmp_path: Path) -> None:
    events = {
        "energy-cores": CORES,
        "energy-gpu": 4,
        "energy-pkg": PKG,
        "energy-psys": PSYS,
        "energy-ram": RAM,
    }
    with PerfSource(devices(tmp_path, events=events), opener=Kernel().open) as source:
        assert {channel.component for channel in source.channels if channel.in_total} == {"package", "dram"}
        assert {channel.component for channel in source.channels if not channel.in_total} == {
            "core",
            "uncore",
            "psys",
        }


def test_a_count_is_two_to_the_minus_32_joules_by_the_scale_file(tmp_path: Path) -> None:
    kernel = Kernel({(PKG, 0): 5})
    with PerfSource(devices(tmp_path, events={"energy-pkg": PKG}), opener=kernel.open) as source:
        (channel,) = source.channels
        track = CounterTrack(channel)
        track.add(source.read()[0])
        kernel.counts[PKG, 0] = 5 + 3 * 2**32
        assert track.add(source.read()[0]).joules == pytest.approx(3.0, rel=1e-15)
    assert (channel.unit_j, channel.wrap) == (2.0**-32, None)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_events_closed_to_the_user_are_unavailable_with_the_command_that_opens_them(
    tmp_path: Path, code: int
) -> None:
    kernel = Kernel()
    kernel.refused[RAM] = OSError(code, os.strerror(code))
    with pytest.raises(SourceUnavailableError, match="energy-ram") as caught:
        PerfSource(devices(tmp_path), opener=kernel.open).open()
    assert "perf_event_paranoid=0" in caught.value.remedy
    assert kernel.is_open == 0


def test_an_event_of_the_total_that_does_not_open_makes_the_source_unavailable(tmp_path: Path) -> None:
    kernel = Kernel()
    kernel.refused[RAM] = OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    with pytest.raises(SourceUnavailableError, match="Invalid argument"):
        PerfSource(devices(tmp_path), opener=kernel.open).open()
    assert kernel.is_open == 0


def test_an_event_outside_the_total_that_does_not_open_is_left_out_and_named(tmp_path: Path) -> None:
    kernel = Kernel()
    kernel.refused[PSYS] = OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    root = devices(tmp_path, events={"energy-pkg": PKG, "energy-psys": PSYS})
    with PerfSource(root, opener=kernel.open) as source:
        assert [channel.name for channel in source.channels] == ["perf:package-0"]
        assert [name for name, _ in source.left_out] == ["perf:package-0/psys"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("type", "power"),
        ("cpumask", ""),
        ("cpumask", "0-"),
        ("cpumask", "0,1"),
        ("events/energy-pkg", "config=2"),
        ("events/energy-pkg.unit", "Watts"),
        ("events/energy-pkg.scale", "0"),
        ("events/energy-pkg.scale", "nan"),
        ("events/energy-pkg.scale", "small"),
    ],
)
def test_a_tree_that_makes_no_sense_is_unavailable_and_the_file_is_named(
    tmp_path: Path, file: str, text: str
) -> None:
    (devices(tmp_path) / "power" / file).write_text(text)
    with pytest.raises(SourceUnavailableError, match=Path(file).name):
        PerfSource(tmp_path, opener=Kernel().open).open()


def test_no_power_events_are_unavailable_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError, match="power/type") as caught:
        PerfSource(tmp_path).open()
    assert "modprobe rapl" in caught.value.remedy
    devices(tmp_path, events={"energy-cores": CORES})
    with pytest.raises(SourceUnavailableError, match="no energy-pkg"):
        PerfSource(tmp_path, opener=Kernel().open).open()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "gave 0 bytes, not 8: its CPU is offline"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output"),
    ],
)
def test_an_event_that_stops_in_the_middle_of_a_run_is_an_error_and_the_others_are_kept(
    tmp_path: Path, answer: bytes | Exception, told: str
) -> None:
    kernel = Kernel({(PKG, 0): 1, (RAM, 0): 2})
    with PerfSource(devices(tmp_path), opener=kernel.open) as source:
        assert len(source.read()) == 2
        kernel.counts[PKG, 0] = answer
        with pytest.raises(ReadError, match=f"perf:package-0: .*{told}") as caught:
            source.read()
    assert [(reading.channel, reading.raw) for reading in caught.value.readings] == [
        ("perf:package-0/dram", 2)
    ]


def test_a_session_counts_events_and_takes_one_that_stops_for_a_gap(tmp_path: Path) -> None:
    kernel = Kernel({(PKG, 0): 7, (RAM, 0): 2**63 - 2**33})
    with EnergySession([PerfSource(devices(tmp_path), opener=kernel.open)], rate_hz=0.1) as session:
        window = session.open_window("epoch")
        kernel.counts |= {(PKG, 0): 7 + 2**32, (RAM, 0): 2**63 - 2**33 + 2**31}
        assert window.close().total_j == pytest.approx(1.5)
        window = session.open_window("epoch", 1)
        kernel.counts |= {(PKG, 0): b"", (RAM, 0): 2**63 - 1}
        energy = window.close()
    assert energy.total_j is None
    assert energy.channels["perf:package-0/dram"].gross_j == pytest.approx(1.5)


def test_a_source_that_is_not_open_reads_nothing(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="not open"):
        PerfSource(devices(tmp_path)).read()


def test_the_kernel_opens_and_reads_an_event_that_every_machine_has() -> None:
    try:
        event = KernelPerfEvent(
            1, 0, 0
        )  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK: ns that the event is open
    except OSError as error:
        pytest.skip(f"this machine opens no perf event of a whole CPU to this user ({error.strerror})")
    try:
        before_ns, (first,) = time.monotonic_ns(), struct.unpack("=Q", event.read())
        time.sleep(0.01)
        (last,) = struct.unpack("=Q", event.read())
        counted_ns, elapsed_ns = last - first, time.monotonic_ns() - before_ns
    finally:
        event.close()
    assert 9_000_000 <= counted_ns <= elapsed_ns


def test_the_kernels_refusal_is_an_os_error() -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 (its number is what is looked at)
        KernelPerfEvent(2**31 - 1, 0, 0)
    assert caught.value.errno in (errno.ENOENT, errno.ENODEV, errno.EINVAL, errno.EACCES, errno.EPERM)
