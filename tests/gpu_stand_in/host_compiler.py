"""`python -m tests.gpu_stand_in.host_compiler FILE`: CUDA C made into a library for the host; prints its path."""

import sys
from pathlib import Path

from tests.dahl.cuda_host import built

print(built(Path(sys.argv[1]).read_text()))
