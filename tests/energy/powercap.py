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


def set_uj(root: Path, zone: str, energy_uj: object) -> None:
    """Let a zone's counter stand at `energy_uj`, in the file that a reader holds open."""
    (root / zone / "energy_uj").write_text(f"{energy_uj}\n")
