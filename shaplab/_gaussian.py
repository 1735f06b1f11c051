"""A Gaussian fitted to rows, in units of each column's own spread, so that no result depends on
units.
"""

from __future__ import annotations

import numpy as np

__all__: list[str] = []

# Share of the largest eigenvalue of a correlation matrix below which a direction is rounding:
# copies of a column.
SINGULAR = 1e-10


def spreads(rows: np.ndarray) -> np.ndarray:
    """Standard deviations of columns ``(d,)``; 1 for constant ones, whose spread is rounding."""
    away = rows - rows.mean(axis=0)
    reach = np.abs(away).max(axis=0)
    constant = _is_rounding(reach, rows)
    reach = np.where(constant, 1.0, reach)
    # Divided first: squares of very large or small numbers leave the range of floats.
    relative = np.sqrt(((away / reach) ** 2).mean(axis=0))
    return np.where(constant, 1.0, reach * relative)


def correlations(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spreads ``(d,)`` and the correlation matrix ``(d, d)``, zero for constant columns."""
    spread = spreads(rows)
    away = (rows - rows.mean(axis=0)) / spread
    reach = np.abs(away).max(axis=0) * spread
    away[:, _is_rounding(reach, rows)] = 0.0
    return spread, away.T @ away / len(rows)


def _is_rounding(reach: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Whether the largest distance from the mean ``(d,)`` is rounding beside a column's numbers."""
    return np.asarray(reach <= 1e-12 * np.abs(rows).max(axis=0))


def regression(correlation: np.ndarray, known: np.ndarray) -> np.ndarray:
    """How all columns follow the known ones: ``(..., d, d)`` for masks ``(..., d)``; rows of
    columns that are not known are zero."""
    among_known = correlation * known[..., :, None] * known[..., None, :]
    return np.linalg.pinv(among_known, rcond=SINGULAR, hermitian=True) @ correlation
