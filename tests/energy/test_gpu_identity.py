import pytest

from energy import Channel, SourceUnavailableError
from energy.gpu_identity import GpuIdentity, channel_of_gpu, pci_address, visible_gpus

A100 = "NVIDIA A100"


def gpus(*names: str, mig: bool = False) -> list[GpuIdentity]:
    return [
        GpuIdentity(f"GPU-{index}{index}{index}-aaaa", f"0000:{index:02x}:00.0", name, mig)
        for index, name in enumerate(names)
    ]


def parent(uuid: str) -> str:
    return {"MIG-a": "GPU-111-aaaa", "MIG-b": "GPU-111-aaaa"}[uuid]


@pytest.mark.parametrize("text", ["00000000:3B:00.0", "0000:3b:00.0", "3b:00.0", " 0000:3B:00.0\n"])
def test_one_pci_address_has_many_spellings(text: str) -> None:
    assert pci_address(text) == "0000:3b:00.0"


@pytest.mark.parametrize("text", ["", "3b", "GPU-1", "0000:3b:00"])
def test_what_is_no_pci_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no PCI address"):
        pci_address(text)


def test_a_cuda_device_finds_its_channel_by_pci_address_or_uuid_and_not_by_number() -> None:
    channels = [
        Channel("nvml:gpu-0", "gpu", True, 1e-3, None, 0.1, "GPU-aa 0000:3b:00.0 NVIDIA A100"),
        Channel("nvml:gpu-0/instant_power", "gpu", False, 1e-6, None, 0.5, "GPU-aa 0000:3b:00.0 NVIDIA A100"),
        Channel("nvml:gpu-1", "gpu", True, 1e-3, None, 0.1, "GPU-bb 0001:3b:00.0 NVIDIA A100"),
    ]
    assert channel_of_gpu(channels, "0001:3B:00.0") is channels[2]
    assert channel_of_gpu(channels, "GPU-aa") is channels[0]
    assert channel_of_gpu(channels, "0000:ff:00.0") is None


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        (None, {0, 1, 2}),
        ("", set()),
        ("1", {1}),
        ("2,0", {0, 2}),
        ("GPU-222-aaaa", {2}),
        ("GPU-2, GPU-0", {0, 2}),
        ("0,7,1", {0}),
        ("-1", set()),
        ("GPU-", set()),
        ("MIG-a,MIG-b", {1}),
        ("MIG-GPU-222-aaaa/1/0", {2}),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(text: str | None, visible: set[int]) -> None:
    environment = {} if text is None else {"CUDA_VISIBLE_DEVICES": text}
    assert visible_gpus(gpus(A100, A100, A100), environment, parent) == visible


def test_numbers_of_unequal_gpus_leave_open_which_they_mean() -> None:
    unequal = gpus("NVIDIA T4", A100)
    with pytest.raises(SourceUnavailableError, match="CUDA_VISIBLE_DEVICES=0 leaves open") as caught:
        visible_gpus(unequal, {"CUDA_VISIBLE_DEVICES": "0"}, parent)
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in caught.value.remedy
    told = {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert visible_gpus(unequal, told, parent) == {0}
    assert visible_gpus(unequal, {"CUDA_VISIBLE_DEVICES": "1,0"}, parent) == {0, 1}


def test_numbers_beside_mig_instances_leave_open_which_gpus_they_mean() -> None:
    with pytest.raises(SourceUnavailableError, match="MIG instances"):
        visible_gpus(gpus(A100, A100, mig=True), {"CUDA_VISIBLE_DEVICES": "0"}, parent)
