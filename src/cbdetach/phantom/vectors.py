"""Directions, vectors and waves: the arithmetic of a phantom's formulas. Points and directions are columns, (3, N)."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def waves(wave: Array, phase: Array, u: Array) -> Array:
    """Sum of sin(wave . u + phase) at u (3, N): wave (K, 3), phase (K,), or one set per direction, (N, K, ...)."""
    total = np.zeros(u.shape[1], u.dtype)
    for k in range(phase.shape[-1]):
        w = wave[..., k, :].T
        total += np.sin(w[0] * u[0] + w[1] * u[1] + w[2] * u[2] + phase[..., k])
    return total


def dot(vector: Array, x: Array) -> Array:
    """Scalar product of one vector (3,) with the columns of x (3, N), in x's precision, without a matrix product
    (whose rounding depends on N).
    """
    a, b, c = vector.astype(x.dtype)
    result: Array = a * x[0] + b * x[1] + c * x[2]
    return result


def cross(a: Array, b: Array) -> Array:
    """Vector product of two vectors (3,); numpy's takes ten times as long for so few numbers."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def unit(vector: Array) -> Array:
    """The vector's direction."""
    result: Array = vector / np.linalg.norm(vector)
    return result


def even_directions(n: int) -> Array:
    """n directions (3, n), each with the same solid angle around it (Fibonacci lattice)."""
    k = np.arange(n) + 0.5
    z = 1 - 2 * k / n
    angle = pi * (1 + sqrt(5)) * k
    side = np.sqrt(1 - z * z)
    return np.stack([z, side * np.sin(angle), side * np.cos(angle)])


def directions(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Random directions, (*shape, 3)."""
    vector = rng.standard_normal((*shape, 3))
    result: Array = vector / np.linalg.norm(vector, axis=-1, keepdims=True)
    return result


def rotations(rng: np.random.Generator, n: int) -> Array:
    """Random orthogonal matrices, (n, 3, 3)."""
    matrices: Array = np.linalg.qr(rng.standard_normal((n, 3, 3)))[0]
    return matrices
