"""The numbers of the runs written to the voxels, 64 at a time: the last step of `cpu`.

A word of few runs is put together in vector registers: where a run is, its number takes the place of what is there. In
one of many every voxel looks up its own: its place in the list of the word's numbers is how many runs start up to it,
which is counted for eight voxels at once.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import extending, types

from .._compile import jit
from .cpu_runs import EACH, HIGH_BYTE, ONE, ZERO, count_bits, ir

FEW = 8  # runs that start in a word which is put together in registers
WORD, EIGHT = np.uint64(64), np.uint64(8)
BYTE = np.uint64(0xFF)
DIAGONAL = np.uint64(0x8040201008040201)
SEVENS = np.uint64(0x7F7F7F7F7F7F7F7F)
SEVEN = np.uint64(7)


@jit
def spread(byte):
    """The bits of a byte as eight bytes, 0 or 1."""
    return ((((byte * EACH) & DIAGONAL) + SEVENS) >> SEVEN) & EACH


@jit
def number_of(parent, run):
    """The number of a run's component; kept, so that runs after it find it at once."""
    up = parent[np.uint64(run)]
    while up >= 0:
        up = parent[np.uint64(up)]
    parent[np.uint64(run)] = up  # another thread may read the old parent or this: both lead to the same number
    return -up


@extending.intrinsic
def write_word(context, flat, start, some, starts, name):
    """Write 64 elements of a flat array: 0 where `some` has no bit, name[1] before the first bit of `starts`, name[2]
    from there to the next, and so on. Unchecked.
    """

    def generate(context, builder, signature, arguments):
        index, lanes = ir.IntType(64), ir.IntType(32)
        array, start, some, starts, name = arguments
        number = ir.IntType(signature.args[0].dtype.bitwidth)
        vector, bits = ir.VectorType(number, 64), ir.VectorType(ir.IntType(1), 64)
        names = context.make_array(signature.args[4])(context, builder, name).data
        blank, every = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(lanes, 64), None)

        def put(word, mask, which):
            """`word` with the number `which` in the voxels of `mask`."""
            one = builder.load(builder.gep(names, [which]))
            splat = builder.shuffle_vector(builder.insert_element(blank, one, lanes(0)), blank, every)
            return builder.select(builder.bitcast(mask, bits), splat, word)

        before, loop, after = (builder.append_basic_block(block) for block in ("before", "loop", "after"))
        builder.branch(before)
        builder.position_at_end(before)
        below = builder.sub(builder.and_(starts, builder.neg(starts)), index(1))  # all bits, if none is set
        word = put(ir.Constant(vector, None), builder.and_(some, below), index(1))
        builder.cbranch(builder.icmp_unsigned("==", starts, index(0)), after, loop)
        builder.position_at_end(loop)
        left, which, so_far = (builder.phi(kind) for kind in (index, index, vector))
        first = builder.and_(left, builder.neg(left))
        rest = builder.xor(left, first)
        end = builder.sub(builder.and_(rest, builder.neg(rest)), first)  # from this bit to before the next
        following = builder.add(which, index(1))
        more = put(so_far, builder.and_(some, end), which)
        for phi, begin, again in ((left, starts, rest), (which, index(2), following), (so_far, word, more)):
            phi.add_incoming(begin, before)
            phi.add_incoming(again, loop)
        builder.cbranch(builder.icmp_unsigned("==", rest, index(0)), after, loop)
        builder.position_at_end(after)
        whole = builder.phi(vector)
        whole.add_incoming(word, before)
        whole.add_incoming(more, loop)
        place = builder.gep(context.make_array(signature.args[0])(context, builder, array).data, [start])
        builder.store(whole, builder.bitcast(place, vector.as_pointer()), align=number.width // 8)
        return context.get_dummy_value()

    return types.void(flat, types.uint64, types.uint64, types.uint64, name), generate


@jit(parallel=True)
def write_labels(some, starts, first, before, parent, labels, bounds):
    """Write the number of every run to `labels` (R, X), zeros elsewhere."""
    n_x, flat, n_words = np.uint64(labels.shape[1]), labels.reshape(-1), np.uint64(some.shape[1] - 2)
    for p in numba.prange(bounds.size - 1):
        name, eight = np.zeros(66, labels.dtype), np.empty(8, np.uint64)
        at = eight.view(np.uint8)
        for r in range(np.uint64(bounds[p]), np.uint64(bounds[p + 1])):  # unsigned: a negative index costs more
            name[1] = 0
            for w in range(n_words):
                begin, length = r * n_x + WORD * w, min(WORD, n_x - WORD * w)
                a, s = some[r, w + ONE], starts[r, w + ONE]
                # name[1] is the number of the run that goes on, the next ones of those that start here
                n = 0
                if s != ZERO:
                    run = first[r] + before[r, w]
                    n = count_bits(s)
                    for k in range(n):
                        name[2 + k] = number_of(parent, run + k)
                if n <= FEW and length == WORD:
                    write_word(flat, begin, a, s, name)
                else:
                    # every voxel's place in the names of background, the run that goes on, and the runs that start
                    count = ONE
                    for k in range(8):
                        move = np.uint64(8 * k)
                        so_far = spread((s >> move) & BYTE) * EACH + count * EACH
                        count = so_far >> HIGH_BYTE
                        there = spread((a >> move) & BYTE)
                        eight[k] = so_far & ((there << EIGHT) - there)
                    for k in range(length):
                        flat[begin + k] = name[at[k]]
                name[1] = name[1 + n]
