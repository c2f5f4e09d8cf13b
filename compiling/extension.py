"""An extension module made of C files by cffi, and the stamp that tells whether it is current."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final


class BuildError(RuntimeError):
    """An extension could not be compiled; the message names the way out."""


@final
@dataclass(frozen=True, kw_only=True)
class Extension:
    """One extension module: `name` in `folder`, of `c_files` and the header `header` in `sources`."""

    name: str
    folder: Path
    sources: Path
    header: str
    c_files: Sequence[str]
    recipe: Path
    """The Python file that says how it is compiled."""
    depends: Sequence[Path] = ()
    """What else it is compiled against, looked at by size and time."""
    declarations: str = ""
    """More than the header has, for cffi alone."""

    @property
    def path(self) -> Path:
        """Where the compiled module lies."""
        return self.folder / f"{self.name}.abi3.so"

    @property
    def _stamp_path(self) -> Path:
        return self.folder / f"{self.name}.stamp"

    def is_current(self) -> bool:
        """Tell whether the module was compiled from the files that are there now."""
        stamp = self._stamp_path
        return self.path.exists() and stamp.exists() and stamp.read_text() == self._digest()

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for path in [*sorted(self.sources.iterdir()), self.recipe, Path(__file__)]:
            digest.update(path.read_bytes())
        for path in self.depends:
            status = path.stat()
            digest.update(f"{path}:{status.st_size}:{status.st_mtime_ns}".encode())
        digest.update(sys.version.encode())
        return digest.hexdigest()

    def _declared(self) -> str:
        """What cffi parses: the header without the preprocessor's lines, and `declarations`."""
        lines = (self.sources / self.header).read_text().splitlines()
        return "\n".join([*(line for line in lines if not line.startswith("#")), self.declarations])

    def compile(
        self, *, include: Sequence[str] = (), compiler: Sequence[str] = (), linker: Sequence[str] = ()
    ) -> Path:
        """Compile the module, whole or not at all, and return its path. Raises BuildError."""
        from cffi import FFI, VerificationError

        ffi = FFI()
        ffi.cdef(self._declared())
        with tempfile.TemporaryDirectory(prefix="dahl-build-") as folder:
            ffi.set_source(
                self.name,
                f'#include "{self.header}"\n',
                sources=[str(self.sources / name) for name in self.c_files],
                include_dirs=[str(self.sources), *include],
                extra_compile_args=["-O2", "-std=gnu11", "-fvisibility=default", "-Wall", *compiler],
                extra_link_args=[*linker],
                py_limited_api=True,
            )
            try:
                built = Path(ffi.compile(tmpdir=folder, verbose=False))
            except VerificationError as error:
                raise BuildError(f"{self.name} does not compile, see above: {error}") from error
            partial = self.path.with_suffix(".partial")
            partial.write_bytes(built.read_bytes())
            partial.replace(self.path)
        self._stamp_path.write_text(self._digest())
        return self.path
