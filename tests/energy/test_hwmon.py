import os
import time
from pathlib import Path

import pytest

from energy import EnergySession, ReadError, SourceUnavailableError, power_model_for
from energy.hwmon import HwmonSource
from energy.integral import LONGEST_GAP_S
from tests.energy.hwmon_tree import add_chip, orin_nano


def joules_between(source: HwmonSource, seconds: float) -> dict[str, float]:
    """What each channel counted in `seconds` of steady power."""
    before = {reading.channel: reading for reading in source.read()}
    time.sleep(seconds)
    return {
        reading.channel: (reading.raw - before[reading.channel].raw)
        / (reading.t_ns - before[reading.channel].t_ns)
        * 1e3
        for reading in source.read()
    }


def test_the_rail_that_feeds_the_module_is_the_total_and_its_sub_rails_are_not(tmp_path: Path) -> None:
    with HwmonSource(orin_nano(tmp_path / "hwmon")) as source:
        assert [(c.name, c.component, c.in_total, c.integrated) for c in source.channels] == [
            ("hwmon:VDD_IN", "board", True, True),
            ("hwmon:VDD_CPU_GPU_CV", "rail", False, True),
            ("hwmon:VDD_SOC", "rail", False, True),
        ]


def test_current_times_voltage_is_summed_up_to_joules(tmp_path: Path) -> None:
    with HwmonSource(orin_nano(tmp_path / "hwmon")) as source:
        watts = joules_between(source, 0.02)
    # uJ per ns, times 1000, are W; one count is 50 uW here.
    assert watts == pytest.approx(
        {"hwmon:VDD_IN": 6.0, "hwmon:VDD_CPU_GPU_CV": 2.0, "hwmon:VDD_SOC": 1.5}, abs=1e-3
    )


def test_a_sensor_of_power_is_taken_before_its_current_and_voltage(tmp_path: Path) -> None:
    files = {
        "in0_input": 2,
        "in1_input": 12_000,
        "curr1_input": 1,
        "power1_input": 36_000_000,
        "label": "VIN",
    }
    add_chip(tmp_path / "hwmon", "hwmon1", "ina226", files)
    with HwmonSource(tmp_path / "hwmon") as source:
        assert [channel.name for channel in source.channels] == ["hwmon:VIN"]
        assert joules_between(source, 0.02) == pytest.approx({"hwmon:VIN": 36.0}, abs=1e-3)


def test_a_counter_of_energy_is_taken_before_power_and_read_as_it_is(tmp_path: Path) -> None:
    files = {"energy1_input": 123_456_789_012, "power1_input": 36_000_000, "power1_label": "VIN"}
    folder = add_chip(tmp_path / "hwmon", "hwmon1", "ltc2947", files)
    (folder / "energy1_label").write_text("VIN")
    with HwmonSource(tmp_path / "hwmon") as source:
        (channel,) = source.channels
        assert (channel.integrated, channel.longest_gap_s, channel.unit_j) == (False, None, 1e-6)
        assert source.read()[0].raw == 123_456_789_012


def test_an_energy_file_that_older_kernels_show_in_the_wrong_unit_is_not_read(tmp_path: Path) -> None:
    add_chip(tmp_path / "hwmon", "hwmon1", "sq52206", {"energy1_input": 5, "power1_input": 1_000_000})
    with HwmonSource(tmp_path / "hwmon") as source:
        assert [channel.integrated for channel in source.channels] == [True]


def test_amd_sockets_are_packages_and_their_cores_are_not_in_the_total(tmp_path: Path) -> None:
    files = {
        "energy1_label": "Ecore000",
        "energy1_input": 7,
        "energy2_label": "Esocket0",
        "energy2_input": 70,
        "energy10_label": "Esocket1",
        "energy10_input": 80,
    }
    add_chip(tmp_path / "hwmon", "hwmon2", "amd_energy", files, "amd_energy.0")
    with HwmonSource(tmp_path / "hwmon") as source:
        assert [(c.name, c.component, c.in_total) for c in source.channels] == [
            ("hwmon:Ecore000", "core", False),
            ("hwmon:Esocket0", "package", True),
            ("hwmon:Esocket1", "package", True),
        ]
        assert [reading.raw for reading in source.read()] == [7, 70, 80]


def test_a_rail_without_a_label_is_named_by_its_chip_and_place(tmp_path: Path) -> None:
    add_chip(tmp_path / "hwmon", "hwmon7", "ina219", {"power1_input": 5_000_000}, "0-0041")
    with HwmonSource(tmp_path / "hwmon") as source:
        (channel,) = source.channels
    assert (channel.name, channel.in_total) == ("hwmon:ina219@0-0041/1", False)


def test_rails_of_one_name_are_told_apart_and_two_totals_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "hwmon"
    for index in (0, 1):
        files = {"in1_label": "NC", "in1_input": 5000, "curr1_input": 8}
        add_chip(root, f"hwmon{index}", "ina3221", files, f"1-004{index}")
    with HwmonSource(root) as source:
        assert [c.name for c in source.channels] == ["hwmon:NC@1-0040/curr1", "hwmon:NC@1-0041/curr1"]
    for index in (0, 1):
        (root / f"hwmon{index}" / "in1_label").write_text("VDD_IN")
    with pytest.raises(SourceUnavailableError, match="VDD_IN is there more than once"):
        HwmonSource(root).open()


def test_a_board_of_ones_own_may_name_its_total_rail(tmp_path: Path) -> None:
    add_chip(tmp_path / "hwmon", "hwmon0", "ina226", {"power1_input": 1_000_000, "label": "VIN_12V"})
    with HwmonSource(tmp_path / "hwmon", total_rails=["VIN_12V"]) as source:
        assert [(c.component, c.in_total) for c in source.channels] == [("board", True)]


def test_the_bound_of_an_integrated_channel_is_what_flows_in_its_longest_gap(tmp_path: Path) -> None:
    orin_nano(tmp_path / "hwmon")
    with EnergySession([HwmonSource(tmp_path / "hwmon")], rate_hz=100) as session:
        window = session.open_window("epoch")
        time.sleep(0.05)
        energy = window.close()
    board = energy.channels["hwmon:VDD_IN"]
    assert board.gross_j == pytest.approx(6.0 * energy.seconds, rel=0.1)
    assert board.bound_j == pytest.approx(LONGEST_GAP_S * 6.0, rel=0.1)
    assert not energy.resolvable
    assert energy.total_j == board.gross_j


def test_a_rate_that_leaves_gaps_between_samples_is_refused_before_a_run(tmp_path: Path) -> None:
    session = EnergySession([HwmonSource(orin_nano(tmp_path / "hwmon"))], rate_hz=1)
    with pytest.raises(ValueError, match=r"hwmon:VDD_IN needs samples within 0\.5 s, choose at least 4"):
        session.open()


def test_a_board_leaves_nothing_to_the_assumed_watts(tmp_path: Path) -> None:
    watts = {"idle_w": 1.0, "polling_w": 2.0, "busy_w": 3.0}
    model = power_model_for({"base_w": 5.0, "cpu": watts, "cuda": watts}, ["cpu", "cuda"])
    with EnergySession([HwmonSource(orin_nano(tmp_path / "hwmon"))], model, rate_hz=10) as session:
        assert session.model_channels == ()


@pytest.mark.parametrize("text", ["", "-40", "nan", "0x10", "1.5"])
def test_what_is_no_amount_is_an_error_and_the_other_rails_are_kept(tmp_path: Path, text: str) -> None:
    root = orin_nano(tmp_path / "hwmon")
    with HwmonSource(root) as source:
        (root / "hwmon4" / "curr1_input").write_text(text)
        with pytest.raises(ReadError, match="hwmon:VDD_IN: read") as caught:
            source.read()
    assert [reading.channel for reading in caught.value.readings] == ["hwmon:VDD_CPU_GPU_CV", "hwmon:VDD_SOC"]


def test_a_chip_that_vanishes_in_the_middle_of_a_run_is_an_error(tmp_path: Path) -> None:
    gone = False

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        if gone:
            raise OSError(19, os.strerror(19))
        return os.pread(descriptor, count, offset)

    with HwmonSource(orin_nano(tmp_path / "hwmon"), pread=pread) as source:
        source.read()
        gone = True
        with pytest.raises(ReadError, match="No such device") as caught:
            source.read()
    assert caught.value.readings == []


def test_a_disabled_rail_is_left_out_and_named_but_the_total_must_be_readable(tmp_path: Path) -> None:
    root = orin_nano(tmp_path / "hwmon")
    (root / "hwmon4" / "curr3_input").write_text("")
    before = len(os.listdir("/proc/self/fd"))
    with HwmonSource(root) as source:
        assert [name for name, _ in source.left_out] == ["hwmon:VDD_SOC"]
    (root / "hwmon4" / "curr1_input").write_text("")
    with pytest.raises(SourceUnavailableError, match="curr1_input"):
        HwmonSource(root).open()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_machine_without_such_sensors_has_no_hwmon_source(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError, match="cannot be listed"):
        HwmonSource(tmp_path / "hwmon").open()
    add_chip(tmp_path / "hwmon", "hwmon0", "coretemp", {"temp1_input": 50_000})
    with pytest.raises(SourceUnavailableError, match="no INA, LTC or amd_energy sensor") as caught:
        HwmonSource(tmp_path / "hwmon").open()
    assert "modprobe" in caught.value.remedy


def test_a_source_that_is_not_open_reads_nothing(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="not open"):
        HwmonSource(tmp_path).read()
