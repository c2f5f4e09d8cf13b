import time
from pathlib import Path

import pynvml
import pytest

from energy import (
    CounterTrack,
    EnergySession,
    Flag,
    NvmlSource,
    PowerStream,
    ReadError,
    SourceUnavailableError,
    read_stream,
)
from tests.energy.nvml_library import Gpu, Nvml, nvml_error

NOT_SUPPORTED = nvml_error(pynvml.NVML_ERROR_NOT_SUPPORTED)
LOST = nvml_error(pynvml.NVML_ERROR_GPU_IS_LOST)


def make(library: Nvml, **environment: str) -> NvmlSource:
    return NvmlSource(library, environment)


def counters(source: NvmlSource) -> dict[str, int]:
    return {reading.channel: reading.raw for reading in source.read() if "/" not in reading.channel}


def test_every_gpu_has_a_counter_in_millijoules_that_knows_its_uuid_and_pci_address() -> None:
    library = Nvml(Gpu(1500), Gpu(2500))
    with make(library) as source:
        assert counters(source) == {"nvml:gpu-0": 1500, "nvml:gpu-1": 2500}
        in_total = [channel for channel in source.channels if channel.in_total]
        assert [channel.device for channel in in_total] == [
            "GPU-00000000-aaaa 0000:3b:00.0 NVIDIA A100",
            "GPU-00000001-aaaa 0000:3c:00.0 NVIDIA A100",
        ]
        assert {(c.component, c.unit_j, c.wrap, c.integrated, c.scope) for c in in_total} == {
            ("gpu", 1e-3, None, False, "")
        }
    assert library.running == 0


def test_the_counter_is_reported_and_integrated_power_is_recorded_beside_it() -> None:
    with make(Nvml(Gpu(1500))) as source:
        assert [(c.name, c.in_total, c.integrated) for c in source.channels] == [
            ("nvml:gpu-0", True, False),
            ("nvml:gpu-0/instant_power", False, True),
            ("nvml:gpu-0/average_power", False, True),
        ]


def test_milliwatts_are_summed_up_to_joules() -> None:
    with make(Nvml(Gpu(instant_mw=250_000, average_mw=240_000))) as source:
        tracks = {channel.name: CounterTrack(channel) for channel in source.channels}
        for reading in source.read():
            tracks[reading.channel].add(reading)
        time.sleep(0.02)
        steps = {reading.channel: tracks[reading.channel].add(reading) for reading in source.read()}
    assert steps["nvml:gpu-0/instant_power"].watts == pytest.approx(250, abs=0.01)
    assert steps["nvml:gpu-0/average_power"].watts == pytest.approx(240, abs=0.01)


def test_a_gpu_without_a_counter_has_its_power_in_the_total_and_says_so() -> None:
    with make(Nvml(Gpu(NOT_SUPPORTED))) as source:
        assert [(c.name, c.in_total, c.integrated) for c in source.channels] == [
            ("nvml:gpu-0/instant_power", True, True),
            ("nvml:gpu-0/average_power", False, True),
        ]


def test_a_gpu_that_knows_no_fields_is_read_by_single_calls() -> None:
    with make(Nvml(Gpu(1500, has_fields=False), Gpu(NOT_SUPPORTED, has_fields=False))) as source:
        assert [(c.name, c.in_total) for c in source.channels] == [
            ("nvml:gpu-0", True),
            ("nvml:gpu-0/average_power", False),
            ("nvml:gpu-1/average_power", True),
        ]
        assert source.read()[0].raw == 1500


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_INVALID_ARGUMENT, pynvml.NVML_ERROR_NOT_SUPPORTED])
def test_a_field_that_the_driver_does_not_know_is_no_channel(code: int) -> None:
    with make(Nvml(Gpu(1500, instant_mw=nvml_error(code)))) as source:
        assert [channel.name for channel in source.channels] == ["nvml:gpu-0", "nvml:gpu-0/average_power"]


def test_a_gpu_that_shows_neither_energy_nor_power_is_unavailable_and_named() -> None:
    library = Nvml(Gpu(1500), Gpu(NOT_SUPPORTED, NOT_SUPPORTED, NOT_SUPPORTED, name="NVIDIA GT 710"))
    with pytest.raises(SourceUnavailableError, match=r"GPU 1 \(NVIDIA GT 710\) has no readable") as caught:
        make(library).open()
    assert "CUDA_VISIBLE_DEVICES" in caught.value.remedy
    assert library.running == 0


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "install the NVIDIA driver"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "sudo modprobe nvidia"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "/dev/nvidia"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "of one version"),
        (pynvml.NVML_ERROR_UNKNOWN, "nvidia-smi"),
    ],
)
def test_an_nvml_that_does_not_start_is_unavailable_with_the_remedy_for_its_code(
    code: int, remedy: str
) -> None:
    with pytest.raises(SourceUnavailableError, match="NVML does not start") as caught:
        make(Nvml(start=nvml_error(code))).open()
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (pynvml.NVML_ERROR_GPU_IS_LOST, "reboot"),
        (pynvml.NVML_ERROR_RESET_REQUIRED, "--gpu-reset"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "/dev/nvidia"),
    ],
)
@pytest.mark.parametrize("has_fields", [True, False])
def test_a_gpu_that_fails_when_it_is_opened_is_unavailable_with_the_remedy_for_its_code(
    code: int, remedy: str, has_fields: bool
) -> None:
    library = Nvml(Gpu(nvml_error(code), has_fields=has_fields))
    with pytest.raises(SourceUnavailableError, match="GPU 0") as caught:
        make(library).open()
    assert remedy in caught.value.remedy
    assert library.running == 0


def test_a_driver_without_a_gpu_is_unavailable() -> None:
    library = Nvml()
    with pytest.raises(SourceUnavailableError, match="no GPU"):
        make(library).open()
    assert library.running == 0


def test_a_gpu_of_someone_else_is_left_out_and_named() -> None:
    closed = nvml_error(pynvml.NVML_ERROR_NO_PERMISSION)
    with make(Nvml(Gpu(handle_error=closed), Gpu(2500))) as source:
        assert counters(source) == {"nvml:gpu-1": 2500}
        assert [name for name, _ in source.left_out] == ["nvml:gpu-0"]
    with pytest.raises(SourceUnavailableError, match="all GPUs are closed"):
        make(Nvml(Gpu(handle_error=closed))).open()


@pytest.mark.parametrize("has_fields", [True, False])
def test_a_gpu_lost_in_the_middle_of_a_run_is_an_error_and_the_others_are_kept(has_fields: bool) -> None:
    library = Nvml(Gpu(1500, has_fields=has_fields), Gpu(2500))
    with make(library) as source:
        library.gpus[0].energy_mj = LOST
        with pytest.raises(ReadError, match="nvml:gpu-0: GPU is lost") as caught:
            source.read()
    assert ("nvml:gpu-1", 2500) in [(reading.channel, reading.raw) for reading in caught.value.readings]
    assert "nvml:gpu-0" not in {reading.channel for reading in caught.value.readings}


def test_a_whole_call_that_fails_is_an_error_of_all_its_fields() -> None:
    library = Nvml(Gpu(1500))
    with make(library) as source:
        library.gpus[0].has_fields = False
        with pytest.raises(ReadError) as caught:
            source.read()
    assert len(caught.value.failed) == 3
    assert caught.value.readings == []


def test_a_driver_loaded_anew_is_a_reset_and_no_wrap() -> None:
    library = Nvml(Gpu(5_000_000_000))
    with make(library) as source:
        track = CounterTrack(source.channels[0])
        track.add(source.read()[0])
        library.gpus[0].energy_mj = 12
        step = track.add(source.read()[0])
    assert (step.joules, step.flags) == (None, Flag.RESET)


def test_a_driver_that_was_unloaded_can_still_be_closed() -> None:
    library = Nvml(Gpu(1500))
    with make(library):
        library.unloaded = True
    assert library.running == 0


@pytest.mark.parametrize("shown", [2**64 - 1, 2**63, -1, 10**15])
def test_a_count_that_no_gpu_can_have_reached_is_a_gap_and_the_record_goes_on(
    tmp_path: Path, shown: int
) -> None:
    library = Nvml(Gpu(1500, has_fields=False))
    stream = PowerStream(tmp_path / "power.stream")
    with EnergySession([make(library)], stream=stream, rate_hz=0.1) as session:
        window = session.open_window("epoch")
        library.gpus[0].energy_mj = shown
        session.snapshot()
        library.gpus[0].energy_mj = 2500
        assert window.close().total_j is None
        after = session.open_window("epoch", 1)
        library.gpus[0].energy_mj = 3000
        assert after.close().total_j == pytest.approx(0.5)
    frame = read_stream(tmp_path / "power.stream")
    assert frame[frame.channel == "nvml:gpu-0"].joules.dropna().tolist()[-1] == pytest.approx(0.5)


def test_two_mig_instances_of_one_gpu_are_that_gpu_once_and_labelled() -> None:
    library = Nvml(Gpu(1500, mig=True), Gpu(2500, mig=False), mig={"MIG-1111": 0, "MIG-2222": 0})
    with make(library, CUDA_VISIBLE_DEVICES="MIG-1111,MIG-2222") as source:
        assert [(c.name, c.scope) for c in source.channels if c.in_total] == [("nvml:gpu-0", "parent_gpu")]
        assert {c.scope for c in source.channels} == {"parent_gpu"}
    with EnergySession([make(library)], rate_hz=0.1) as session:
        window = session.open_window("epoch")
        library.gpus[0].energy_mj, library.gpus[1].energy_mj = 2500, 3000
        assert window.close().total_j == pytest.approx(1.0 + 0.5)


def test_a_gpu_that_cuda_does_not_show_is_not_read() -> None:
    with make(Nvml(Gpu(1500), Gpu(2500)), CUDA_VISIBLE_DEVICES="GPU-00000001") as source:
        assert counters(source) == {"nvml:gpu-1": 2500}
        assert source.left_out == (("nvml:gpu-0", "GPU-00000000-aaaa is hidden by CUDA_VISIBLE_DEVICES"),)
    with pytest.raises(SourceUnavailableError, match="hides every GPU"):
        make(Nvml(Gpu(1500)), CUDA_VISIBLE_DEVICES="").open()


def test_an_unknown_mig_instance_is_unavailable() -> None:
    with pytest.raises(SourceUnavailableError, match="MIG-9999"):
        make(Nvml(Gpu(mig=True)), CUDA_VISIBLE_DEVICES="MIG-9999").open()


def test_a_source_that_is_not_open_reads_nothing() -> None:
    with pytest.raises(ReadError, match="not open"):
        make(Nvml(Gpu())).read()


@pytest.mark.gpu
def test_a_real_gpu_counts_more_than_it_draws_asleep() -> None:
    with NvmlSource() as source:
        tracks = {channel.name: CounterTrack(channel) for channel in source.channels}
        for _ in range(30):
            for reading in source.read():
                tracks[reading.channel].add(reading)
            time.sleep(0.1)
    for name, track in tracks.items():
        assert track.mark.breaks == 0, name
        watts = track.mark.counts * track.channel.unit_j / 2.9
        assert 5 < watts < 2000, name
