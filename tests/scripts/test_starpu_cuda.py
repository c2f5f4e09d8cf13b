"""The variant `cuda` of `scripts/get-starpu`, on stand-ins for StarPU's sources and for a toolkit."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from getstarpu.cuda import find_toolkit, toolkit_in
from getstarpu.patches import PATCHES, apply_patches
from getstarpu.process import GetStarpuError

from tests.scripts.conftest import starpu_source

DRIVER = "src/drivers/cuda/driver_cuda.c"
# What a variant's configure does besides: it says that it has CUDA, and writes a header and a pkg-config file.
CONFIGURES_CUDA = """\
case "$*" in *--with-cuda-include-dir=*) polling='#define STARPU_USE_CUDA 1' ;; esac
echo '#include <cuda_runtime_api.h>' >starpu.h
printf '%s\\n' "prefix=$prefix" 'Cflags: -I/gone/toolkit/include' 'Libs: -L/gone/toolkit/lib -lcublas' >starpu-1.4.pc
"""


def toolkit(folder: Path, version: int = 13000) -> Path:
    """A folder that looks like a CUDA toolkit, with a library that can be loaded."""
    (folder / "include" / "crt").mkdir(parents=True)
    (folder / "include" / "crt" / "host_config.h").touch()
    for name in ("cuda_runtime.h", "cublas_v2.h"):
        (folder / "include" / name).write_text("#error not to be included\n", encoding="utf-8")
    (folder / "include" / "cuda_runtime_api.h").write_text(
        f"#define CUDART_VERSION  {version}\ntypedef struct CUstream_st *cudaStream_t;\n", encoding="utf-8"
    )
    (folder / "lib").mkdir()
    library = folder / "lib" / f"libcudart.so.{version // 1000}"
    subprocess.run(
        ["cc", "-shared", f"-Wl,-soname,{library.name}", "-o", library, "-x", "c", "/dev/null"], check=True
    )
    return folder


def cuda_source(folder: Path) -> Path:
    """Like StarPU's sources, with the lines that are changed, and a header that includes one of the toolkit's."""
    source = starpu_source(folder, extra=CONFIGURES_CUDA)
    configure = source / "configure"
    text = configure.read_text(encoding="utf-8")
    installs = "\tcp starpu_config.h "
    pkg_config = "\\$(DESTDIR)$prefix/lib/pkgconfig"
    text = text.replace(
        installs, f"\tmkdir -p {pkg_config}\n\tcp starpu-1.4.pc {pkg_config}\n\tcp starpu.h starpu_config.h "
    )
    configure.write_text(text, encoding="utf-8")
    driver = source / DRIVER
    driver.parent.mkdir(parents=True)
    driver.write_text("".join(patch.old for patch in PATCHES), encoding="utf-8")
    return source


def get_starpu(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key not in ("CUDA_HOME", "CUDA_PATH")}
    return subprocess.run(
        [sys.executable, checkout / "scripts" / "get-starpu", *arguments],
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=checkout,
        timeout=60,
    )


def test_a_change_goes_to_the_one_place_that_it_is_for(tmp_path: Path) -> None:
    file = tmp_path / DRIVER
    file.parent.mkdir(parents=True)
    file.write_text(
        "before\n" + "between\n".join(patch.old for patch in PATCHES) + "after\n", encoding="utf-8"
    )
    apply_patches(tmp_path)
    changed = file.read_text(encoding="utf-8")
    assert "computeMode ==" not in changed
    assert "cudaDevAttrComputeMode" in changed
    assert changed.startswith("before\n")
    with pytest.raises(GetStarpuError, match=r"'compute-mode' does not fit src/drivers/cuda/driver_cuda\.c"):
        apply_patches(tmp_path)


def test_a_toolkit_is_told_by_its_headers_its_version_and_its_runtime(tmp_path: Path) -> None:
    found = toolkit_in(toolkit(tmp_path / "cuda", 13020))
    assert found is not None
    assert (found.version, found.runtime.name) == ("13.2", "libcudart.so.13")
    shutil.rmtree(tmp_path / "cuda" / "lib")
    assert toolkit_in(tmp_path / "cuda") is None


def test_the_toolkit_that_is_named_comes_before_that_of_nvcc_and_a_wrong_name_is_an_error(
    tmp_path: Path,
) -> None:
    first, second = toolkit(tmp_path / "first", 12080), toolkit(tmp_path / "second")
    (second / "bin").mkdir()
    nvcc = second / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\n", encoding="utf-8")
    nvcc.chmod(0o755)
    path = str(nvcc.parent)
    assert find_toolkit(tmp_path, {"PATH": path, "CUDA_HOME": str(first)}) == toolkit_in(first)
    assert find_toolkit(tmp_path, {"PATH": path}) == toolkit_in(second)
    with pytest.raises(GetStarpuError, match=r"CUDA_PATH is '/nowhere'.*libcudart"):
        find_toolkit(tmp_path, {"CUDA_PATH": "/nowhere"})


def test_the_packages_of_the_virtual_environment_are_a_toolkit(tmp_path: Path) -> None:
    own = toolkit(tmp_path / "venv/lib/python3.11/site-packages/nvidia/cu13")
    found = find_toolkit(tmp_path, {"PATH": "", "DAHL_VENV": str(tmp_path / "venv")})
    system = next(
        filter(None, map(toolkit_in, map(Path, ("/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda")))), None
    )
    assert found == (system or toolkit_in(own))


def test_where_there_is_a_toolkit_the_variant_is_built_and_carries_what_it_needs(
    checkout: Path, tmp_path: Path
) -> None:
    kit, source = toolkit(tmp_path / "kit"), cuda_source(tmp_path / "source")
    done = get_starpu(checkout, STARPU_SRC=str(source), CUDA_HOME=str(kit))
    assert (done.returncode, done.stderr) == (0, "")
    prefix = checkout / ".starpu" / "cuda"
    assert (prefix / "lib" / "libcudart.so.13").read_bytes() == (kit / "lib" / "libcudart.so.13").read_bytes()
    assert (prefix / "include" / "cuda" / "cuda_runtime_api.h").is_file()
    assert not (prefix / "include" / "cuda" / "cuda_runtime.h").exists()
    shown = subprocess.run(
        ["readelf", "--dynamic", prefix / "lib" / "libstarpu-1.4.so"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"RUNPATH.*\[\$ORIGIN\]", shown.stdout)
    described = (prefix / "lib/pkgconfig/starpu-1.4.pc").read_text(encoding="utf-8")
    assert "prefix=${pcfiledir}/../.." in described
    assert "/gone/" not in described
    stamp = json.loads((prefix / "built.json").read_text(encoding="utf-8"))
    assert stamp["toolkit"] == "13.0"
    # The sources that were named are as they were.
    assert "computeMode ==" in (source / DRIVER).read_text(encoding="utf-8")

    again = get_starpu(checkout, "--quiet", STARPU_SRC=str(source), CUDA_HOME=str(kit))
    assert (again.returncode, again.stdout) == (0, "")
    other = get_starpu(
        checkout, "--variant=cuda", STARPU_SRC=str(source), CUDA_HOME=str(toolkit(tmp_path / "k", 13010))
    )
    assert "cuda: compiling" in other.stdout


def test_a_toolkit_that_is_asked_for_and_missing_is_one_line_with_the_way_out(checkout: Path) -> None:
    code = (
        "import sys, getstarpu.cuda, getstarpu.command; getstarpu.cuda._SYSTEM_FOLDERS = ();"
        "sys.exit(getstarpu.command.main(['--cuda']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "/nowhere", "PYTHONPATH": str(checkout / "scripts")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        "get-starpu: no CUDA toolkit is found: install one, name its folder in CUDA_HOME"
    )
    assert done.stderr.count("\n") == 1
