import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from energy import SOURCES, power_model_for, select_sources

CONFIGS = Path(__file__).parents[2] / "configs"


def test_importing_energy_loads_no_data_frames_and_no_driver() -> None:
    program = (
        "import sys, energy; print(*{'pandas', 'pyarrow', 'pynvml', 'dahl', 'hydra'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ended.stdout.strip() == ""


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("energy/*.yaml")), ids=lambda path: path.stem)
def test_every_energy_configuration_names_known_sources_and_gives_a_power_model(path: Path) -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = OmegaConf.to_container(compose(overrides=[f"+energy={path.stem}"]).energy)
    assert isinstance(config, dict)
    needed = {"sources", "rate_hz", "settings", "idle_baseline_s", "min_window_s", "window_batches", "model"}
    assert needed <= set(config)
    assert config["sources"] == {"auto": "auto", "model": []}.get(path.stem, [path.stem])
    assert config["sources"] == "auto" or set(config["sources"]) <= set(SOURCES)
    select_sources([], settings=config["settings"])
    model = power_model_for(config["model"], ["cpu", "cuda"])
    assert model.channels == ("base", "cpu", "gpu")
