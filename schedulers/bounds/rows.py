"""Rows of a linear program, put together one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final


@final
@dataclass
class Rows:
    """Rows ``coefficients @ variables`` against ``right``, by column and value."""

    row: list[int] = field(default_factory=list)
    column: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    right: list[float] = field(default_factory=list)

    def add(self, terms: Mapping[int, float], right: float = 0.0) -> None:
        """Append a row."""
        self.row += [len(self.right)] * len(terms)
        self.column += terms.keys()
        self.value += terms.values()
        self.right.append(right)

    def matrix(self, columns: int) -> Any:
        """Return the sparse matrix with so many columns."""
        from scipy.sparse import coo_matrix

        return coo_matrix((self.value, (self.row, self.column)), (len(self.right), columns)).tocsr()


def sum_of(*terms: Mapping[int, float]) -> dict[int, float]:
    """Add up coefficients by column."""
    total: dict[int, float] = {}
    for one in terms:
        for column, value in one.items():
            total[column] = total.get(column, 0.0) + value
    return total
