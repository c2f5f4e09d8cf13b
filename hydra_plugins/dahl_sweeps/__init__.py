"""Hydra finds the sweeper and the launchers of this project here: it takes plugins from no other package."""
