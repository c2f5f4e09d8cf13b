"""The parts of `scripts/get-starpu`: standard library only, since there is no virtual environment yet."""
