"""What a policy tells a runtime about itself, whether it is compiled or interpreted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from schedulers.base import MEMORY_FLOATS, Kind, PlacementPolicy, PullPolicy
from schedulers.planning import check_machine, lay_out_for, plan_policy


class PreparedPolicy(ABC):
    """A policy ready to be installed in a runtime (the protocol ``dahl.starpu.Policy``), but for its answers."""

    policy: PlacementPolicy | PullPolicy

    @abstractmethod
    def entry(self) -> int:
        """Return the address of a C function that calls the method."""

    @abstractmethod
    def hooks(self) -> dict[str, int]:
        """Return the addresses of C functions that call the hooks."""

    @abstractmethod
    def raised(self) -> BaseException | None:
        """Return the first exception of the policy, as far as it is known."""

    @property
    def name(self) -> str:
        """The policy's class."""
        return type(self.policy).__name__

    @property
    def kind(self) -> Kind:
        """Which family the policy belongs to."""
        return "placement" if isinstance(self.policy, PlacementPolicy) else "pull"

    @property
    def needs(self) -> tuple[str, ...]:
        """What has to be known before the first task: the policy's ``NEEDS``."""
        return self.policy.NEEDS

    def memory_size(self) -> int:
        """Return the float64 of its own that the policy has."""
        return MEMORY_FLOATS

    def check_machine(self, workers: Sequence[Any], base_w: float) -> None:
        """Let the policy refuse a machine on which it cannot work."""
        check_machine(self.policy, workers, base_w)

    def plan(self, kinds: Sequence[Any], workers: Sequence[Any], base_w: float, memory: np.ndarray) -> None:
        """Let the policy plan, in plain Python."""
        plan_policy(self.policy, kinds, workers, base_w, memory)

    def lays_out(self) -> bool:
        """Return whether the policy has ``lay_out``."""
        return self.policy.LAYS_OUT

    def lay_out(
        self,
        graphs: Sequence[Any],
        links: Any,
        workers: Sequence[Any],
        base_w: float,
        memory: np.ndarray,
    ) -> None:
        """Let the policy plan for these very tasks, in plain Python."""
        lay_out_for(self.policy, graphs, links, workers, base_w, memory)
