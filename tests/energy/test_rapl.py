import errno
import os
import pickle
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from energy import RaplSource, ReadError, SourceUnavailableError
from tests.energy.powercap import DRAM_RANGE_UJ, PACKAGE_RANGE_UJ, add_zone, laptop, set_uj


def read_uj(source: RaplSource) -> dict[str, int]:
    return {reading.channel: reading.raw for reading in source.read()}


def test_zones_are_read_by_name_and_only_packages_and_dram_are_in_the_total(tmp_path: Path) -> None:
    with RaplSource(laptop(tmp_path)) as source:
        assert read_uj(source) == {
            "rapl:package-0": 1_000_000,
            "rapl:package-0/core": 600_000,
            "rapl:package-0/uncore": 100_000,
            "rapl:package-0/dram": 500_000,
            "rapl:psys": 9_000_000,
            "rapl:mmio/package-0": 1_000_000,
        }
        in_total = {channel.name: channel.component for channel in source.channels if channel.in_total}
        assert in_total == {"rapl:package-0": "package", "rapl:package-0/dram": "dram"}


def test_the_range_of_each_counter_is_read_from_its_own_file(tmp_path: Path) -> None:
    with RaplSource(laptop(tmp_path)) as source:
        wraps = {channel.name: channel.wrap for channel in source.channels}
    assert wraps["rapl:package-0"] == PACKAGE_RANGE_UJ + 1
    assert wraps["rapl:package-0/dram"] == DRAM_RANGE_UJ + 1


def test_zone_numbers_are_hexadecimal_and_may_have_gaps(tmp_path: Path) -> None:
    for zone, name in {"0": "package-0", "9": "package-9", "a": "package-10", "10": "package-16"}.items():
        add_zone(tmp_path, f"intel-rapl:{zone}", name, int(zone, 16))
        add_zone(tmp_path, f"intel-rapl:{zone}:b", "dram", 100 + int(zone, 16))
    with RaplSource(tmp_path) as source:
        assert list(read_uj(source).items()) == [
            ("rapl:package-0", 0),
            ("rapl:package-0/dram", 100),
            ("rapl:package-9", 9),
            ("rapl:package-9/dram", 109),
            ("rapl:package-10", 10),
            ("rapl:package-10/dram", 110),
            ("rapl:package-16", 16),
            ("rapl:package-16/dram", 116),
        ]


def test_dies_of_one_package_are_packages_of_their_own(tmp_path: Path) -> None:
    for index, name in enumerate(
        ["package-0-die-0", "package-0-die-1", "package-1-die-0", "package-1-die-1"]
    ):
        add_zone(tmp_path, f"intel-rapl:{index}", name, index)
    with RaplSource(tmp_path) as source:
        assert [channel.in_total for channel in source.channels] == [True] * 4
        assert read_uj(source)["rapl:package-1-die-0"] == 2


def test_a_nested_listing_and_a_flat_one_read_the_same(tmp_path: Path) -> None:
    flat, nested = tmp_path / "flat", tmp_path / "nested"
    add_zone(flat, "intel-rapl:0", "package-0", 7)
    add_zone(flat, "intel-rapl:0:1", "dram", 8)
    add_zone(nested / "intel-rapl", "intel-rapl:0", "package-0", 7)
    add_zone(nested / "intel-rapl" / "intel-rapl:0", "intel-rapl:0:1", "dram", 8)
    # As the kernel does it: the class folder shows every zone, and zones show their own.
    (nested / "intel-rapl:0").symlink_to(nested / "intel-rapl" / "intel-rapl:0")
    (nested / "intel-rapl:0:1").symlink_to(nested / "intel-rapl" / "intel-rapl:0" / "intel-rapl:0:1")
    with RaplSource(flat) as one, RaplSource(nested) as other:
        assert read_uj(one) == read_uj(other) == {"rapl:package-0": 7, "rapl:package-0/dram": 8}


def test_a_reading_sees_what_the_counter_shows_now(tmp_path: Path) -> None:
    with RaplSource(laptop(tmp_path)) as source:
        set_uj(tmp_path, "intel-rapl:0", 1_250_000)
        assert read_uj(source)["rapl:package-0"] == 1_250_000


def test_a_reading_keeps_its_files_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with RaplSource(laptop(tmp_path)) as source:
        opened = len(os.listdir("/proc/self/fd"))
        source.read()
        assert len(os.listdir("/proc/self/fd")) == opened == before + 6
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("text", ["", "-5", "12x", "1.5", "nan", str(PACKAGE_RANGE_UJ + 1)])
def test_what_is_no_counter_value_is_an_error_and_the_other_channels_are_kept(
    tmp_path: Path, text: str
) -> None:
    with RaplSource(laptop(tmp_path)) as source:
        set_uj(tmp_path, "intel-rapl:0", text)
        with pytest.raises(ReadError, match="rapl:package-0") as caught:
            source.read()
    assert list(caught.value.failed) == ["rapl:package-0"]
    assert "rapl:package-0/dram" in {reading.channel for reading in caught.value.readings}
    assert "rapl:package-0" not in {reading.channel for reading in caught.value.readings}


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENODEV], ids=["driver failure", "hot unplug"])
def test_a_domain_that_fails_or_vanishes_in_the_middle_of_a_run_is_an_error(
    tmp_path: Path, code: int
) -> None:
    broken = False

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        if broken:
            raise OSError(code, os.strerror(code))
        return os.pread(descriptor, count, offset)

    with RaplSource(laptop(tmp_path), pread=pread) as source:
        assert len(source.read()) == 6
        broken = True
        with pytest.raises(ReadError, match=os.strerror(code)) as caught:
            source.read()
        assert caught.value.readings == []
        broken = False
        assert len(source.read()) == 6


def test_a_source_that_is_not_open_reads_nothing(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="not open"):
        RaplSource(laptop(tmp_path)).read()


def test_no_powercap_tree_is_unavailable_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError, match="absent") as caught:
        RaplSource(tmp_path / "absent").open()
    assert "modprobe intel_rapl_msr" in caught.value.remedy
    assert pickle.loads(pickle.dumps(caught.value)).remedy == caught.value.remedy


def test_a_tree_without_a_package_is_unavailable(tmp_path: Path) -> None:
    add_zone(tmp_path, "intel-rapl:1", "psys", 5)
    with pytest.raises(SourceUnavailableError, match="no package zone"):
        RaplSource(tmp_path).open()


def test_two_zones_of_one_name_are_refused_and_not_added_up(tmp_path: Path) -> None:
    add_zone(tmp_path, "intel-rapl:0", "package-0", 5)
    add_zone(tmp_path, "intel-rapl:1", "package-0", 5)
    with pytest.raises(SourceUnavailableError, match="both named rapl:package-0"):
        RaplSource(tmp_path).open()


@pytest.mark.parametrize("text", ["", "0", "-1", "large"])
def test_a_zone_without_a_range_is_unavailable(tmp_path: Path, text: str) -> None:
    (laptop(tmp_path) / "intel-rapl:0" / "max_energy_range_uj").write_text(text)
    with pytest.raises(SourceUnavailableError, match="max_energy_range_uj"):
        RaplSource(tmp_path).open()


def test_a_broken_zone_outside_the_total_is_left_out_and_named(tmp_path: Path) -> None:
    set_uj(laptop(tmp_path), "intel-rapl:0:0", "")
    with RaplSource(tmp_path) as source:
        assert "rapl:package-0/core" not in read_uj(source)
        assert [name for name, _ in source.left_out] == ["rapl:package-0/core"]


def test_a_broken_zone_of_the_total_makes_the_source_unavailable(tmp_path: Path) -> None:
    (laptop(tmp_path) / "intel-rapl:0:2" / "energy_uj").unlink()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SourceUnavailableError, match="intel-rapl:0:2/energy_uj"):
        RaplSource(tmp_path).open()
    assert len(os.listdir("/proc/self/fd")) == before


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Give up root's right to read everything, for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(0)


def test_counters_that_only_root_may_read_are_unavailable_with_the_command_that_opens_them() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = laptop(Path(folder))
        root.chmod(0o755)
        for path in root.glob("*/energy_uj"):
            path.chmod(stat.S_IWUSR if os.geteuid() else stat.S_IRUSR)
        with as_ordinary_user(), pytest.raises(SourceUnavailableError, match="root only") as caught:
            RaplSource(root).open()
    assert "sudo scripts/allow-rapl" in caught.value.remedy


def test_a_closed_file_outside_the_total_is_left_out_and_named() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = laptop(Path(folder))
        root.chmod(0o755)
        (root / "intel-rapl:1" / "energy_uj").chmod(stat.S_IWUSR if os.geteuid() else stat.S_IRUSR)
        with as_ordinary_user(), RaplSource(root) as source:
            assert [name for name, _ in source.left_out] == ["rapl:psys"]
            assert "rapl:psys" not in read_uj(source)


def test_dies_that_mirror_one_counter_are_counted_once(tmp_path: Path) -> None:
    for index in range(4):
        add_zone(tmp_path, f"intel-rapl:{index}", f"package-0-die-{index}", 5_000_000)
    add_zone(tmp_path, "intel-rapl:4", "package-1-die-0", 5_000_000)
    add_zone(tmp_path, "intel-rapl:5", "package-1-die-1", 7_000_000)
    with RaplSource(tmp_path) as source:
        assert [channel.name for channel in source.channels if channel.in_total] == [
            "rapl:package-0-die-0",
            "rapl:package-1-die-0",
            "rapl:package-1-die-1",
        ]
        assert source.channels[1].device == "intel-rapl:1, shows the counter of rapl:package-0-die-0"


def test_dies_that_mirror_a_counter_on_the_move_are_counted_once(tmp_path: Path) -> None:
    shown = 5_000_000

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        nonlocal shown
        shown += 700
        return f"{shown}\n".encode()

    for index in range(2):
        add_zone(tmp_path, f"intel-rapl:{index}", f"package-0-die-{index}", 0)
    with RaplSource(tmp_path, pread=pread) as source:
        assert [channel.in_total for channel in source.channels] == [True, False]
