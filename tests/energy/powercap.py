"""Builds folders that look like `/sys/class/powercap`."""

from pathlib import Path

PACKAGE_RANGE_UJ = 262143328850
DRAM_RANGE_UJ = 65712999613


def add_zone(root: Path, zone: str, name: str, energy_uj: object, range_uj: int = PACKAGE_RANGE_UJ) -> Path:
    """One zone: its folder, with the files that the kernel shows."""
    folder = root / zone
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder


def laptop(root: Path, package_uj: int = 1_000_000, dram_uj: int = 500_000) -> Path:
    """One package with core, uncore and dram, psys, and the mmio copy, listed flat as in `/sys/class`."""
    add_zone(root, "intel-rapl:0", "package-0", package_uj)
    add_zone(root, "intel-rapl:0:0", "core", 600_000)
    add_zone(root, "intel-rapl:0:1", "uncore", 100_000)
    add_zone(root, "intel-rapl:0:2", "dram", dram_uj, DRAM_RANGE_UJ)
    add_zone(root, "intel-rapl:1", "psys", 9_000_000)
    add_zone(root, "intel-rapl-mmio:0", "package-0", package_uj)
    (root / "intel-rapl").mkdir()
    (root / "intel-rapl-mmio").mkdir()
    return root


SERVER_UJ = {
    "intel-rapl:0": ("package-0-die-0", 10_000_000),
    "intel-rapl:0:0": ("dram", 1_000_000),
    "intel-rapl:1": ("package-0-die-1", 20_000_000),
    "intel-rapl:1:0": ("dram", 2_000_000),
    "intel-rapl:3": ("psys", 99_000_000),
    "intel-rapl:a": ("package-1-die-0", 30_000_000),
    "intel-rapl:a:0": ("dram", 3_000_000),
    "intel-rapl:a:b": ("core", 300_000),
    "intel-rapl:b": ("package-1-die-1", 40_000_000),
    "intel-rapl:b:0": ("dram", 4_000_000),
    "intel-rapl-mmio:0": ("package-0-die-0", 10_000_000),
}
"""Name and counter of each zone of a server, by its folder."""


def server(root: Path) -> Path:
    """Two packages of two dies with dram, psys, an mmio copy, hexadecimal numbers above 9 and gaps in them."""
    for zone, (name, energy_uj) in SERVER_UJ.items():
        add_zone(root, zone, name, energy_uj, DRAM_RANGE_UJ if name == "dram" else PACKAGE_RANGE_UJ)
    return root


def set_uj(root: Path, zone: str, energy_uj: object) -> None:
    """Let a zone's counter stand at `energy_uj`, in the file that a reader holds open."""
    (root / zone / "energy_uj").write_text(f"{energy_uj}\n")
