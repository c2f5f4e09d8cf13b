"""Builds folders that look like `/sys/class/hwmon`."""

from pathlib import Path


def add_chip(root: Path, hwmon: str, chip: str, files: dict[str, object], place: str = "1-0040") -> Path:
    """One sensor chip: its folder, with the files that the kernel shows."""
    folder = root / hwmon
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{chip}\n")
    (root.parent / "devices" / place).mkdir(parents=True, exist_ok=True)
    (folder / "device").symlink_to(root.parent / "devices" / place)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def orin_nano(root: Path) -> Path:
    """A Jetson Orin Nano: an INA3221 with three rails, of which the first feeds the module, and a thermal chip."""
    rails = {1: ("VDD_IN", 5000, 1200), 2: ("VDD_CPU_GPU_CV", 5000, 400), 3: ("VDD_SOC", 5000, 300)}
    files: dict[str, object] = {"update_interval": 0}
    for index, (label, millivolts, milliamperes) in rails.items():
        files |= {
            f"in{index}_label": label,
            f"in{index}_input": millivolts,
            f"curr{index}_input": milliamperes,
        }
        files |= {f"in{index + 3}_input": 6}  # drops over the shunts
    files |= {"in7_input": 18, "in7_label": "sum of shunt voltages", "curr4_input": 1900}
    add_chip(root, "hwmon4", "ina3221", files)
    add_chip(root, "hwmon0", "tmp451", {"temp1_input": 40_000, "in1_input": 3300, "curr1_input": 5}, "1-004c")
    return root
