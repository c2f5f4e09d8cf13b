"""What the runtime and the kernels cost, each as a command: ``python -m benchmarks.NAME [--json FILE]``."""
