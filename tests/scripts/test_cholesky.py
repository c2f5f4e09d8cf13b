"""Where the source and the BLAS of StarPU's Cholesky example come from."""

import hashlib
from pathlib import Path

import pytest
from getstarpu import cholesky
from getstarpu.apt import Source
from getstarpu.process import GetStarpuError, Processes

from tests.scripts.conftest import program


@pytest.fixture(autouse=True)
def no_named_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STARPU_SRC", raising=False)


def kept(folder: Path) -> Source:
    return cholesky.kept_source(folder / "cache", folder, Processes(), folder / "log")


def test_a_source_is_fetched_once_and_again_when_its_copy_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tarball = tmp_path / "starpu_1.4.99.orig.tar.gz"
    tarball.write_bytes(b"a tarball")
    sha256 = hashlib.sha256(b"a tarball").hexdigest()
    fetched = []

    def fetch(*_: object) -> Source:
        fetched.append(1)
        return Source(tarball, "somewhere", sha256)

    monkeypatch.setattr(cholesky, "distribution_source", fetch)
    assert kept(tmp_path).sha256 == sha256
    copy = tmp_path / "cache" / f"starpu-{sha256}.tar.gz"
    assert kept(tmp_path).path == copy
    assert len(fetched) == 1
    copy.write_bytes(b"half a tarb")
    assert kept(tmp_path).sha256 == sha256
    assert len(fetched) == 2
    assert copy.read_bytes() == b"a tarball"


def test_the_named_source_is_taken_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tree").mkdir()
    monkeypatch.setenv("STARPU_SRC", str(tmp_path / "tree"))
    assert kept(tmp_path).path == (tmp_path / "tree").resolve()


def test_scipys_openblas_is_called_by_the_names_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "pkg-config", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    library = tmp_path / "scipy.libs" / "libscipy_openblas-1.so"
    package = tmp_path / "scipy" / "__init__.py"
    for file in (library, package):
        file.parent.mkdir()
        file.touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        cholesky.importlib.util,
        "find_spec",
        lambda name: cholesky.importlib.machinery.ModuleSpec(name, None, origin=str(package)),
    )
    blas = cholesky.find_blas("extern void sgemm_(int);\nextern float sasum_ (int);\nvoid STARPU_SGEMM(int);")
    assert blas.flags == ("-DSTARPU_OPENBLAS", "-Dsasum_=scipy_sasum_", "-Dsgemm_=scipy_sgemm_")
    assert str(library) in blas.libraries
    library.unlink()
    with pytest.raises(GetStarpuError, match="install libopenblas-dev or a wheel of scipy"):
        cholesky.find_blas("")
