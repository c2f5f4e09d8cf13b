"""`python -m experiments.torch_twin`: the same training in PyTorch, with the same records.

It is `python -m experiments.run framework=torch`, and takes the same settings; docs/torch.md.
"""

from __future__ import annotations

import sys

from experiments import run


def main() -> int:
    """Run the command; returns its exit status."""
    sys.argv[1:1] = ["framework=torch"]
    return run.main()


if __name__ == "__main__":
    sys.exit(main())
