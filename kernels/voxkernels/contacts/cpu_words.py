"""Flat arrays 64 elements at a time: comparisons in vector instructions whose result is a word, one bit an element.

Written in LLVM's own vectors, which every processor has in some width. Not checked here: what an intrinsic reads must
exist. `equal_word` and `unequal_word` look, and go voxel by voxel.
"""

import numpy as np
from numba import core, extending, types

from .._compile import has_avx2_alone, jit, where_equal

ir = core.cgutils.ir  # type: ignore[attr-defined]  # LLVM, as Numba itself writes it


def load(context, builder, kind, array, start, n=64):
    """LLVM for n elements of a flat array as a vector."""
    lane = ir.IntType(kind.dtype.bitwidth)
    first = builder.gep(context.make_array(kind)(context, builder, array).data, [start])
    return builder.load(builder.bitcast(first, ir.VectorType(lane, n).as_pointer()), align=lane.width // 8)


def spread(builder, number, n):
    """LLVM for one number in every element of a vector."""
    index = ir.IntType(32)
    blank, every = ir.Constant(ir.VectorType(number.type, n), ir.Undefined), ir.Constant(ir.VectorType(index, n), None)
    return builder.shuffle_vector(builder.insert_element(blank, number, ir.Constant(index, 0)), blank, every)


@extending.intrinsic
def unequal_bits(context, array, start, other):
    """Bit k of the result: whether elements start + k and other + k of a flat array differ."""

    def generate(context, builder, signature, arguments):
        one = load(context, builder, signature.args[0], arguments[0], arguments[1])
        two = load(context, builder, signature.args[0], arguments[0], arguments[2])
        return builder.not_(where_equal(context, builder, one, two))

    return types.uint64(array, types.uint64, types.uint64), generate


@extending.intrinsic
def any_negative(context, array, start):
    """Whether any element from start to start + 63 of a flat array is negative."""

    def generate(context, builder, signature, arguments):
        every = load(context, builder, signature.args[0], *arguments)
        lane, n = ir.IntType(32), 64
        while has_avx2_alone(context) and n > 8:  # as many as fit a vector: a mask of 64 would be packed first
            n //= 2
            halves = [ir.Constant(ir.VectorType(lane, n), [*range(k, k + n)]) for k in (0, n)]
            every = builder.or_(*(builder.shuffle_vector(every, every, half) for half in halves))
        negative = builder.icmp_signed("<", every, ir.Constant(every.type, None))
        return builder.icmp_unsigned("!=", builder.bitcast(negative, ir.IntType(n)), ir.Constant(ir.IntType(n), 0))

    return types.boolean(array, types.uint64), generate


@extending.intrinsic
def above_bits(context, array, start, value):
    """Bit k of the result: whether element start + k of a flat array is above `value`, both not negative."""

    def generate(context, builder, signature, arguments):
        one = load(context, builder, signature.args[0], arguments[0], arguments[1])
        return builder.bitcast(builder.icmp_unsigned(">", one, spread(builder, arguments[2], 64)), ir.IntType(64))

    return types.uint64(array, types.uint64, array.dtype), generate


@extending.intrinsic
def equal_bits(context, array, start, value):
    """Bit k of the result: whether element start + k of a flat array is `value`."""

    def generate(context, builder, signature, arguments):
        one = load(context, builder, signature.args[0], arguments[0], arguments[1])
        return where_equal(context, builder, one, spread(builder, arguments[2], 64))

    return types.uint64(array, types.uint64, array.dtype), generate


@extending.intrinsic
def lowest_bit(context, bits):
    """The number of the lowest bit that is set in a word; 64 in a word that is 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@extending.intrinsic
def count_bits(context, bits):
    """How many bits of a word are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@extending.intrinsic
def in_place(context, number):
    """The same number, of which LLVM knows nothing: what is made of it is made there, not carried along in a loop."""

    def generate(context, builder, signature, arguments):
        same = ir.FunctionType(ir.IntType(64), [ir.IntType(64)])
        return builder.asm(same, "", "=r,0", arguments, side_effect=True)

    return types.uint64(types.uint64), generate


@extending.intrinsic
def prefetch(context, array, index):
    """Ask for the memory of one element of a flat array, which need not exist."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        pointer = builder.gep(context.make_array(kind)(context, builder, arguments[0]).data, [arguments[1]])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = core.cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0i8")
        builder.call(function, [builder.bitcast(pointer, byte), *(ir.Constant(number, k) for k in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


@extending.intrinsic
def store_six(context, array, start, a, b, c, d, e, f):
    """Write six words and two of 0 to a flat array."""

    def generate(context, builder, signature, arguments):
        vector = ir.Constant(ir.VectorType(ir.IntType(64), 8), None)
        for k, word in enumerate(arguments[2:]):
            vector = builder.insert_element(vector, word, ir.Constant(ir.IntType(32), k))
        place = builder.gep(context.make_array(array)(context, builder, arguments[0]).data, [arguments[1]])
        builder.store(vector, builder.bitcast(place, vector.type.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(array, types.uint64, *(types.uint64,) * 6), generate


@extending.intrinsic
def add_counts(context, sums, row, open_, run, classes, c):
    """sums[row + d] += how many bits are set in open_[d] & run & classes[c + d], for d < 8; flat arrays."""

    def generate(context, builder, signature, arguments):
        eight = ir.VectorType(ir.IntType(64), 8)

        def place(k, index):
            first = context.make_array(signature.args[k])(context, builder, arguments[k]).data
            return builder.bitcast(builder.gep(first, [index]), eight.as_pointer())

        bits = builder.load(place(2, ir.Constant(ir.IntType(64), 0)), align=8)
        bits = builder.and_(bits, spread(builder, arguments[3], 8))
        bits = builder.and_(bits, builder.load(place(4, arguments[5]), align=8))
        sums = place(0, arguments[1])
        ctpop = core.cgutils.get_or_insert_function(builder.module, ir.FunctionType(eight, [eight]), "llvm.ctpop.v8i64")
        builder.store(builder.add(builder.load(sums, align=8), builder.call(ctpop, [bits])), sums, align=8)
        return context.get_dummy_value()

    return types.void(sums, types.uint64, open_, types.uint64, classes, types.uint64), generate


@extending.intrinsic
def list_equal_bits(context, array, start, offsets, value, words, begin):
    """As `equal_bits` at each start + offset of 25, into words[begin:], 25, and after them once more in reverse."""

    def generate(context, builder, signature, arguments):
        write_equal_bits(context, builder, signature, arguments, range(25))
        return context.get_dummy_value()

    return types.void(array, types.int64, offsets, array.dtype, words, types.int64), generate


@extending.intrinsic
def list_near_bits(context, array, start, offsets, value, words, begin, k):
    """As `list_equal_bits`, but of the eight elements from start + k alone: bits k to k + 7 of each word."""

    def generate(context, builder, signature, arguments):
        arguments = [*arguments[:1], builder.add(arguments[1], arguments[6]), *arguments[2:]]
        write_equal_bits(context, builder, signature, arguments, range(25), 8, arguments[6])
        return context.get_dummy_value()

    return types.void(array, types.int64, offsets, array.dtype, words, types.int64, types.int64), generate


@extending.intrinsic
def list_next_bits(context, array, start, offsets, value, words, begin):
    """As `list_equal_bits`, where the first 20 are those that have been the last 20 so far."""

    def generate(context, builder, signature, arguments):
        first = builder.gep(context.make_array(signature.args[4])(context, builder, arguments[4]).data, [arguments[5]])
        moves = []
        for source, target in ((5, 0), (25, 30)):
            for step, n in ((0, 8), (8, 8), (16, 4)):
                vector = ir.VectorType(ir.IntType(64), n).as_pointer()
                places = [builder.gep(first, [ir.Constant(ir.IntType(64), k + step)]) for k in (source, target)]
                source_, target_ = (builder.bitcast(place, vector) for place in places)
                moves.append((builder.load(source_, align=8), target_))
        for vector, place in moves:
            builder.store(vector, place, align=8)
        write_equal_bits(context, builder, signature, arguments, range(20, 25))
        return context.get_dummy_value()

    return types.void(array, types.int64, offsets, array.dtype, words, types.int64), generate


def write_equal_bits(context, builder, signature, arguments, places, n=64, move=None):
    """LLVM for the words of `list_equal_bits` at these places, of n elements; moved up by as many bits as `move`."""
    index, kinds = ir.IntType(64), signature.args
    listed, written = (context.make_array(kinds[k])(context, builder, arguments[k]).data for k in (2, 4))
    written = builder.gep(written, [arguments[5]])
    wanted = spread(builder, arguments[3], n)
    for r in places:
        offset = builder.load(builder.gep(listed, [ir.Constant(index, r)]))
        found = load(context, builder, kinds[0], arguments[0], builder.add(arguments[1], offset), n)
        if n < 64:
            word = builder.bitcast(builder.icmp_signed("==", found, wanted), ir.IntType(n))
            word = builder.shl(builder.zext(word, index), move)
        else:
            word = where_equal(context, builder, found, wanted)
        for place in (r, 49 - r):
            builder.store(word, builder.gep(written, [ir.Constant(index, place)]))


@jit
def equal_word(array, start, value):
    """As `equal_bits`; what lies beyond the ends of the array is not equal."""
    bits = np.uint64(0)
    for k in range(max(0, -start), min(64, array.size - start)):
        bits |= np.uint64(array[start + k] == value) << np.uint64(k)
    return bits


@jit
def unequal_word(array, start, other):
    """As `unequal_bits`; what lies beyond the ends of the array is not unequal."""
    bits = np.uint64(0)
    for k in range(max(0, -start, -other), min(64, array.size - start, array.size - other)):
        bits |= np.uint64(array[start + k] != array[other + k]) << np.uint64(k)
    return bits


@jit(inline=True)
def list_bits(words, chosen, queue):
    """Write 64 d + k for every bit k that is set in words[d] & chosen, d < 6; return how many."""
    n = 0
    for d in range(6):
        bits = words[d] & chosen
        end = n + count_bits(bits)
        for k in range(4):
            queue[np.uint64(n + k)] = 64 * d + lowest_bit(bits)
            bits &= bits - np.uint64(1)
        n += 4
        while bits != 0:
            queue[np.uint64(n)] = 64 * d + lowest_bit(bits)
            bits &= bits - np.uint64(1)
            n += 1
        n = end
    return n
