"""A random forest as plain arrays: what scikit-learn has grown, flattened, checked, and walked by a compiled loop.

A file of numbers can be read from anybody; a pickle cannot, because reading it runs code. So a forest is kept as the
arrays below, and `Forest.check` refuses arrays that are not a forest before a single voxel is walked through them: a
child always lies behind its parent, so that every walk ends, and no index leaves its array.

Nodes of all trees lie one after another. At an inner node a voxel goes to the next node where
``x[feature] <= threshold`` and to `right` otherwise, as in scikit-learn, with single-precision features and
double-precision thresholds. At a leaf, `right` is -1 and `feature` the row of its class shares. The forest's answer is
the mean of the leaves'. Cost: trees times depth, about 2 microseconds per voxel for 40 trees on one core.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from cbdetach.errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Forest:
    """T trees of N nodes and L leaves in all, C classes."""

    roots: NDArray[np.int64]
    """(T,) first node of each tree, ascending."""
    feature: NDArray[np.int32]
    """(N,) feature that an inner node asks for; row of `shares` of a leaf."""
    threshold: NDArray[np.float64]
    """(N,)"""
    right: NDArray[np.int64]
    """(N,) node where the answer is no; -1 at a leaf."""
    shares: NDArray[np.float32]
    """(L, C) share of each class in a leaf."""

    def check(self, n_features: int, n_classes: int) -> None:
        """InputError if the arrays are not a forest for so many features and classes."""
        n = self.feature.size
        leaf = self.right < 0
        at = np.arange(n)
        if not (
            self.roots.ndim == self.feature.ndim == self.threshold.ndim == self.right.ndim == 1
            and self.shares.ndim == 2
            and self.roots.size
            and n == self.threshold.size == self.right.size
            and self.shares.shape[1] == n_classes
            and self.roots[0] == 0
            and (np.diff(self.roots) > 0).all()
            and self.roots[-1] < n
            and np.isfinite(self.threshold[~leaf]).all()
            and np.isfinite(self.shares).all()
            and (self.shares >= 0).all()
        ):
            raise InputError("classifier: must hold a random forest; its arrays do not fit together. Train it again.")
        end = np.append(self.roots[1:], n)[np.searchsorted(self.roots, at, side="right") - 1]
        inner = ~leaf
        good = (
            (self.right[inner] > at[inner] + 1).all()
            and (self.right[inner] < end[inner]).all()
            and ((self.feature >= 0) & (self.feature < np.where(leaf, len(self.shares), n_features))).all()
        )
        if not good:
            raise InputError("classifier: must hold a random forest; a node points out of its tree. Train it again.")

    @staticmethod
    def from_sklearn(fitted: Any) -> Forest:
        """The arrays of a fitted scikit-learn forest of classification trees."""
        roots, feature, threshold, right, shares = [], [], [], [], []
        nodes = leaves = 0
        for estimator in fitted.estimators_:
            tree = estimator.tree_
            leaf = tree.children_left < 0
            inner = np.flatnonzero(~leaf)
            if (tree.children_left[inner] != inner + 1).any():
                raise RuntimeError("scikit-learn numbers the nodes of a tree in another order than was assumed")
            value = tree.value[leaf, 0]
            roots.append(nodes)
            feature.append(np.where(leaf, leaves + np.cumsum(leaf) - 1, tree.feature))
            threshold.append(np.where(leaf, 0.0, tree.threshold))
            right.append(np.where(leaf, -1, tree.children_right + nodes))
            shares.append(value / value.sum(axis=1, keepdims=True))
            nodes, leaves = nodes + leaf.size, leaves + int(leaf.sum())
        return Forest(
            np.array(roots, np.int64),
            np.concatenate(feature).astype(np.int32),
            np.concatenate(threshold).astype(np.float64),
            np.concatenate(right).astype(np.int64),
            np.concatenate(shares).astype(np.float32),
        )

    def shares_of(self, x: Array) -> NDArray[np.float32]:
        """Shares of the classes (n, C) for features x (n, F) float32. `check` must have passed."""
        out = np.zeros((len(x), self.shares.shape[1]), np.float32)
        walk = _compiled()
        walk(
            np.ascontiguousarray(x, np.float32), self.roots, self.feature, self.threshold, self.right, self.shares, out
        )
        return out


def _walk(x: Array, roots: Array, feature: Array, threshold: Array, right: Array, shares: Array, out: Array) -> None:
    for i in numba.prange(len(x)):
        for root in roots:
            node = root
            while right[node] >= 0:
                node = node + 1 if np.float64(x[i, feature[node]]) <= threshold[node] else right[node]
            for c in range(shares.shape[1]):
                out[i, c] += shares[feature[node], c]
        for c in range(shares.shape[1]):
            out[i, c] /= len(roots)


_kernel: list[Any] = []


def _compiled() -> Any:
    """The loop, compiled when it is first needed, under the kernels' policy."""
    if not _kernel:
        from voxkernels._compile import jit

        _kernel.append(jit(_walk, parallel=True))
    return _kernel[0]
