"""Commands on Hydra: run, doctor."""
