"""A server's powercap tree, read through a session: what is counted, what is a gap."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from energy import EnergySession, RaplSource
from tests.energy.powercap import PACKAGE_RANGE_UJ, SERVER_UJ, server, set_uj

SELDOM_HZ = 0.1


class Driver:
    """Reads files, and gives an error for those zones that a test breaks."""

    def __init__(self) -> None:
        self.broken: dict[str, int] = {}

    def pread(self, descriptor: int, count: int, offset: int) -> bytes:
        zone = Path(os.readlink(f"/proc/self/fd/{descriptor}")).parent.name
        if zone in self.broken:
            raise OSError(self.broken[zone], os.strerror(self.broken[zone]))
        return os.pread(descriptor, count, offset)


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def session(tmp_path: Path, driver: Driver) -> Iterator[EnergySession]:
    server(tmp_path)
    set_uj(tmp_path, "intel-rapl:a:b", "")  # one unreadable file, of a core
    with EnergySession([RaplSource(tmp_path, pread=driver.pread)], rate_hz=SELDOM_HZ) as session:
        yield session


def add_uj(root: Path, amounts: dict[str, int]) -> None:
    for zone, amount in amounts.items():
        set_uj(root, zone, SERVER_UJ[zone][1] + amount)


def test_the_total_is_packages_and_dram_of_all_dies_once(tmp_path: Path, session: EnergySession) -> None:
    window = session.open_window("epoch")
    # One J a zone: four packages and four dram are the total; psys, core and mmio cover them or lie inside.
    add_uj(tmp_path, dict.fromkeys(SERVER_UJ.keys() - {"intel-rapl:a:b"}, 1_000_000))
    energy = window.close()
    assert energy.total_j == pytest.approx(8.0)
    assert sum(channel.gross_j or 0 for channel in energy.channels.values()) == pytest.approx(10.0)
    assert {name for name, channel in energy.channels.items() if not channel.in_total} == {
        "rapl:psys",
        "rapl:mmio/package-0-die-0",
    }
    assert "rapl:package-1-die-0/core" not in energy.channels


def test_each_die_has_its_own_joules_by_its_name(tmp_path: Path, session: EnergySession) -> None:
    window = session.open_window("epoch")
    add_uj(tmp_path, {"intel-rapl:0": 1_000_000, "intel-rapl:a": 3_000_000, "intel-rapl:b:0": 4_000_000})
    energy = window.close()
    joules = {name: channel.gross_j for name, channel in energy.channels.items() if channel.gross_j}
    assert joules == pytest.approx(
        {"rapl:package-0-die-0": 1.0, "rapl:package-1-die-0": 3.0, "rapl:package-1-die-1/dram": 4.0}
    )


def test_a_wrap_of_one_socket_only_is_counted_right(tmp_path: Path, session: EnergySession) -> None:
    set_uj(tmp_path, "intel-rapl:a", PACKAGE_RANGE_UJ - 1_499_999)
    set_uj(tmp_path, "intel-rapl:b", 6_000_000)
    window = session.open_window("epoch")
    set_uj(tmp_path, "intel-rapl:a", 500_000)
    set_uj(tmp_path, "intel-rapl:b", 7_000_000)
    energy = window.close()
    assert energy.channels["rapl:package-1-die-0"].gross_j == pytest.approx(2.0)
    assert energy.channels["rapl:package-1-die-1"].gross_j == pytest.approx(1.0)
    assert energy.total_j == pytest.approx(3.0)


def test_einval_in_the_middle_of_a_run_is_a_gap_of_that_die_and_no_number(
    tmp_path: Path, session: EnergySession, driver: Driver
) -> None:
    window = session.open_window("epoch")
    driver.broken["intel-rapl:a"] = errno.EINVAL
    session.snapshot()
    del driver.broken["intel-rapl:a"]
    add_uj(tmp_path, {"intel-rapl:a": 1_000_000, "intel-rapl:b": 2_000_000})
    energy = window.close()
    assert (energy.channels["rapl:package-1-die-0"].gross_j, energy.total_j) == (None, None)
    assert energy.channels["rapl:package-1-die-1"].gross_j == pytest.approx(2.0)
    after = session.open_window("epoch", 1)
    add_uj(tmp_path, {"intel-rapl:a": 1_500_000, "intel-rapl:b": 2_000_000})
    assert after.close().total_j == pytest.approx(0.5)


def test_a_die_that_is_unplugged_stays_a_gap_and_the_others_go_on(
    tmp_path: Path, session: EnergySession, driver: Driver
) -> None:
    driver.broken |= {"intel-rapl:b": errno.ENODEV, "intel-rapl:b:0": errno.ENODEV}
    window = session.open_window("epoch")
    add_uj(tmp_path, {"intel-rapl:0": 1_000_000})
    energy = window.close()
    assert energy.total_j is None
    assert energy.channels["rapl:package-0-die-0"].gross_j == pytest.approx(1.0)
    assert not energy.channels["rapl:package-1-die-1/dram"].complete


@pytest.mark.parametrize("text", ["-1", "", "12a", str(10**40), str(PACKAGE_RANGE_UJ + 1)])
def test_a_counter_that_shows_no_amount_is_a_gap_and_no_number(
    tmp_path: Path, session: EnergySession, text: str
) -> None:
    window = session.open_window("epoch")
    set_uj(tmp_path, "intel-rapl:0", text)
    energy = window.close()
    assert (energy.channels["rapl:package-0-die-0"].gross_j, energy.total_j) == (None, None)
