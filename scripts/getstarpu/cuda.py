"""A CUDA toolkit, and what StarPU's `cuda` variant is compiled against.

StarPU's CUDA driver needs the headers and the shared library of the CUDA runtime; cuBLAS, cuSPARSE and cuSOLVER are
named by its headers, but called by functions that this project never calls. Those libraries have hundreds of MB, so the
variant is compiled against a folder of its own: the toolkit's headers, a few declarations in place of these libraries'
(`cuda_headers/`), and functions that end the process with a line. The result needs no toolkit where it runs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from getstarpu.process import GetStarpuError, Processes

_OWN_HEADERS = Path(__file__).parent / "cuda_headers"
_LIBRARY_FOLDERS = ("lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib")
_SYSTEM_FOLDERS = (Path("/usr/local/cuda"), Path("/opt/cuda"), Path("/usr/lib/cuda"))

WAY_OUT = (
    "install one, name its folder in CUDA_HOME,"
    " or put one into the virtual environment: .venv/bin/python -m pip install"
    " 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-nvml-dev==13.0.*'"
)


@dataclass(frozen=True)
class Toolkit:
    """The headers and the runtime library of a CUDA toolkit."""

    include: Path
    runtime: Path
    """`libcudart.so.13`, or whatever the toolkit's version is."""
    version: str


def find_toolkit(root: Path, environment: Mapping[str, str] = os.environ) -> Toolkit | None:
    """The first toolkit of those that CUDA_HOME and CUDA_PATH name, nvcc's own, the system's, and PyPI's in `.venv`.

    Raises:
        GetStarpuError: CUDA_HOME or CUDA_PATH name a folder without one.
    """
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if environment.get(name):
            found = toolkit_in(Path(environment[name]))
            if found is None:
                raise GetStarpuError(
                    f"{name} is {environment[name]!r}, which has no include/cuda_runtime.h or no libcudart.so"
                )
            return found
    return next(filter(None, map(toolkit_in, _places(root, environment))), None)


def _places(root: Path, environment: Mapping[str, str]) -> Iterable[Path]:
    nvcc = shutil.which("nvcc", path=environment.get("PATH", ""))
    if nvcc:
        yield Path(nvcc).resolve().parents[1]
    yield from _SYSTEM_FOLDERS
    named = (environment.get("DAHL_VENV"), environment.get("VIRTUAL_ENV"), str(root / ".venv"))
    for virtual in filter(None, named):
        yield from sorted(Path(virtual).glob("lib/python3*/site-packages/nvidia/cu1?"), reverse=True)


def toolkit_in(folder: Path) -> Toolkit | None:
    """The toolkit in a folder; None where it is not one."""
    header = folder / "include" / "cuda_runtime_api.h"
    if not header.is_file() or not (folder / "include" / "crt" / "host_config.h").is_file():
        return None
    number = re.search(
        r"#define\s+CUDART_VERSION\s+(\d+)", header.read_text(encoding="utf-8", errors="replace")
    )
    if number is None:
        return None
    major, minor = divmod(int(number[1]), 1000)
    for name in _LIBRARY_FOLDERS:
        runtime = folder / name / f"libcudart.so.{major}"
        if runtime.is_file():
            return Toolkit(folder / "include", runtime.resolve(), f"{major}.{minor // 10}")
    return None


def prepare(toolkit: Toolkit, work: Path, processes: Processes, log: Path) -> Path:
    """Lay out the folder that StarPU is compiled against: its `include` and `lib`.

    Raises:
        GetStarpuError: the functions in place of cuBLAS's do not compile.
    """
    include, library = work / "toolkit" / "include", work / "toolkit" / "lib"
    include.mkdir(parents=True)
    library.mkdir()
    own = {header.name for header in _OWN_HEADERS.glob("*.h")}
    left_out = re.compile(r"(cublas|cusparse|cusolver|cufft|curand)\w*\.h")
    for entry in toolkit.include.iterdir():
        if entry.name not in own and not left_out.fullmatch(entry.name):
            (include / entry.name).symlink_to(entry)
    for name in own:
        (include / name).symlink_to(_OWN_HEADERS / name)
    (library / "libcudart.so").symlink_to(toolkit.runtime)
    compiled = library / "cublas.o"
    steps = (
        ("cc", "-O2", "-fPIC", "-c", "-o", compiled, f"-I{include}", _OWN_HEADERS / "cublas.c"),
        ("ar", "rcs", library / "libcublas.a", compiled),
    )
    for step in steps:
        if processes.run(step, log) != 0:
            raise GetStarpuError(
                f"the toolkit {toolkit.version} in {toolkit.include.parent} will not do", log
            )
    return work / "toolkit"


def configure_options(folder: Path) -> tuple[str, ...]:
    """The options of `configure` for a folder that `prepare` laid out."""
    absent = ("cublasLt_cublasLtCreate", "cusparse_cusparseCreate", "cusolver_cusolverDnCreate")
    return (
        f"--with-cuda-include-dir={folder}/include",
        f"--with-cuda-lib-dir={folder}/lib",
        *(f"ac_cv_lib_{name}=no" for name in absent),
        # Asked for, and not called: StarPU itself has no CUDA sources.
        "NVCC=true",
    )


def build_environment(toolkit: Toolkit) -> dict[str, str]:
    """What `configure` and `make` need: their programs find the runtime, the library finds what lies beside it."""
    found = [str(toolkit.runtime.parent), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {"LD_RUN_PATH": "$ORIGIN", "LD_LIBRARY_PATH": os.pathsep.join(found)}


def bring_along(toolkit: Toolkit, folder: Path, prefix: Path, log: Path) -> None:
    """Put beside an installed StarPU what it needs to be linked to and to run, and make its pkg-config file say so.

    These are the CUDA runtime, hwloc and what that needs, and those headers of the toolkit that StarPU's own include;
    `folder` is what `prepare` laid out.

    Raises:
        GetStarpuError: one of them is not found.
    """
    library = next(prefix.glob("lib/libstarpu-*.so"))
    # What debuggers read is four fifths of it.
    subprocess.run(["strip", "--strip-debug", library.resolve()], check=False)
    shutil.copyfile(toolkit.runtime, prefix / "lib" / toolkit.runtime.name)
    for name, path in _linked(library, toolkit):
        if not Path(path).is_file():
            raise GetStarpuError(f"{name}, which the cuda variant needs, is not found", log)
        if Path(path).parent != library.parent:
            shutil.copyfile(path, prefix / "lib" / name)
    versioned = next(prefix.glob("include/starpu/*"))
    for header in _included(versioned, folder / "include", log):
        target = prefix / "include" / "cuda" / header
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "include" / header, target)
    for file in prefix.glob("lib/pkgconfig/*.pc"):
        _rewrite(file, toolkit)


def _linked(library: Path, toolkit: Toolkit) -> list[tuple[str, str]]:
    environment = {**os.environ, **build_environment(toolkit)}
    shown = subprocess.run(["ldd", library], capture_output=True, text=True, env=environment).stdout
    names = r"lib(?:hwloc|udev|xml2|pciaccess|cap)\.so\S*"
    return re.findall(rf"^\s*({names}) => (.*?)(?: \(0x\w+\))?$", shown, re.MULTILINE)


def _included(starpu: Path, include: Path, log: Path) -> list[Path]:
    """The toolkit's headers that `starpu.h` includes, by the compiler's own account."""
    command = [
        "cc",
        "-M",
        "-E",
        f"-I{starpu}",
        f"-I{include}",
        "-include",
        "starpu.h",
        "-x",
        "c",
        "/dev/null",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise GetStarpuError("starpu.h cannot be compiled with this toolkit", log)
    found = (Path(word) for word in done.stdout.replace("\\\n", " ").split())
    return [path.relative_to(include) for path in found if path.is_relative_to(include)]


def _rewrite(file: Path, toolkit: Toolkit) -> None:
    """The toolkit is no longer needed: its headers and its runtime lie beside StarPU's."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("prefix="):
            line = "prefix=${pcfiledir}/../.."
        elif line.startswith(("exec_prefix=", "libdir=")):
            line = {"e": "exec_prefix=${prefix}", "l": "libdir=${prefix}/lib"}[line[0]]
        elif line.startswith("includedir="):
            line = "includedir=${prefix}/include"
        elif line.startswith("Libs:"):
            line = f"Libs: -L${{libdir}} -lstarpu-1.4 -l:{toolkit.runtime.name}"
        elif line.startswith("Libs.private:"):
            continue
        elif line.startswith("Requires:"):
            line = "Requires.private: hwloc"  # its headers; the library lies beside StarPU's
        elif line.startswith("Cflags:"):
            kept = [word for word in line.split()[1:] if "/toolkit/include" not in word]
            line = " ".join(["Cflags:", *kept, "-I${includedir}/cuda"])
        lines.append(line)
    file.write_text("\n".join([*lines, ""]), encoding="utf-8")
