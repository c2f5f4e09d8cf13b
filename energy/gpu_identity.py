"""Which GPUs CUDA shows to a program, told by UUID and PCI address: CUDA and NVML number them differently."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from energy.source import Channel, SourceUnavailableError


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """A physical GPU as NVML knows it."""

    uuid: str
    pci_bus_id: str
    """As `pci_address` gives it."""
    name: str
    mig: bool
    """Whether it is cut into MIG instances."""


def pci_address(text: str) -> str:
    """`00000000:3B:00.0` (NVML), `0000:3b:00.0` (CUDA, Linux) or `3b:00.0` as `0000:3b:00.0`.

    Raises `ValueError` for what is no PCI address.
    """
    match = re.fullmatch(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is no PCI address such as 0000:3b:00.0")
    domain, bus, device, function = match.groups()
    return f"{int(domain or '0', 16):04x}:{bus}:{device}.{function}"


def channel_of_gpu(channels: Iterable[Channel], identity: str) -> Channel | None:
    """The channel in the total of the GPU with this UUID or PCI address; None where there is none."""
    wanted = identity if identity.startswith("GPU-") else pci_address(identity)
    for channel in channels:
        if channel.component == "gpu" and channel.in_total and wanted in channel.device.split():
            return channel
    return None


def visible_gpus(
    gpus: Sequence[GpuIdentity], environment: Mapping[str, str], parent_of_mig: Callable[[str], str]
) -> frozenset[int]:
    """Places in `gpus` (in PCI order) of those that CUDA shows under `environment`.

    `CUDA_VISIBLE_DEVICES` may hold numbers, UUIDs or their beginnings, and MIG instances, whose GPU
    `parent_of_mig(uuid)` names by its UUID. As CUDA does, it is read up to the first entry that means nothing.
    Raises `SourceUnavailableError` where numbers leave open which GPUs they mean.
    """
    text = environment.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return frozenset(range(len(gpus)))
    found: set[int] = set()
    by_number = False
    for entry in (part.strip() for part in text.split(",")):
        index = _index_of(gpus, entry, parent_of_mig)
        if index is None:
            break
        by_number |= entry.isdigit()
        found.add(index)
    if by_number and len(found) < len(gpus):
        _check_order(gpus, text, environment)
    return frozenset(found)


def _index_of(gpus: Sequence[GpuIdentity], entry: str, parent_of_mig: Callable[[str], str]) -> int | None:
    if entry.isdigit():
        return int(entry) if int(entry) < len(gpus) else None
    if entry.startswith("MIG-"):
        # Drivers before 470 name an instance by its GPU: MIG-GPU-<uuid>/<gpu instance>/<compute instance>.
        entry = entry[4:].split("/")[0] if entry.startswith("MIG-GPU-") else parent_of_mig(entry)
    matches = [index for index, gpu in enumerate(gpus) if entry and gpu.uuid.startswith(entry)]
    return matches[0] if len(matches) == 1 else None


def _check_order(gpus: Sequence[GpuIdentity], text: str, environment: Mapping[str, str]) -> None:
    """CUDA's default order puts the fastest GPU first, which among equal ones is PCI order too."""
    equal = len({gpu.name for gpu in gpus}) == 1 or environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if not equal or any(gpu.mig for gpu in gpus):
        raise SourceUnavailableError(
            "nvml",
            f"CUDA_VISIBLE_DEVICES={text} leaves open which GPUs it means, of unequal ones or MIG instances",
            "export CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID: `nvidia-smi -L` lists them",
        )
