"""Travel time on the CPU: the difference equation in vector instructions, 64 voxels at a time.

A block is 4 x 4 x 4 voxels, 64 floats in a row: four vectors of 16 lanes, one for each z, in it y, then x. A neighbour
in z is the same lane of another vector; one in y or x is a lane further on, across the block's face in the block beside
it. So every neighbour of 16 voxels is one load or one shuffle, and one pass over a block is 64 solutions of the
equation without a branch. The code is written in LLVM's own vectors, which every processor has in some width, and does
IEEE arithmetic of 32 bits: the same bits everywhere.

Blocks lie in one flat array; `at` holds the offsets of a block and of the six beside it: own, -z, +z, -y, +y, -x, +x.
Times are inf outside the domain, and where there is no block (the block at 0). Bit 16 z + 4 y + x of a word belongs to
one voxel of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import core, extending, types

ir = core.cgutils.ir  # type: ignore[attr-defined]  # LLVM, as Numba itself writes it

FLOATS, EIGHT = ir.VectorType(ir.FloatType(), 16), ir.VectorType(ir.FloatType(), 8)
WORD, HALF, INDEX = ir.IntType(64), ir.IntType(16), ir.IntType(32)
LANES = range(16)

# Of 32 lanes, own and beside: the neighbour of each lane, one and two steps down or up in y and in x
DOWN_Y = {n: [i - 4 * n if i >= 4 * n else 32 - 4 * n + i for i in LANES] for n in (1, 2)}
UP_Y = {n: [i + 4 * n for i in LANES] for n in (1, 2)}
DOWN_X = {n: [i - n if i % 4 >= n else 16 + i + 4 - n for i in LANES] for n in (1, 2)}
UP_X = {n: [i + n if i % 4 < 4 - n else 16 + i - 4 + n for i in LANES] for n in (1, 2)}

Vector = Any  # of 16 floats or 16 bits, in LLVM

intrinsic: Any = extending.intrinsic
declare: Any = core.cgutils.get_or_insert_function
tuple_of: Any = types.UniTuple


class Emit:
    """LLVM for vectors of 16, written with the names of arithmetic."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.b = builder
        self.data = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, arguments, strict=True)
        ]

    def const(self, value: float) -> Vector:
        return ir.Constant(FLOATS, [value] * 16)

    def spread(self, number: Any) -> Vector:
        """One number in every lane."""
        empty = ir.Constant(FLOATS, ir.Undefined)
        return self.shuffle(self.b.insert_element(empty, number, INDEX(0)), empty, [0] * 16)

    def place(self, array: Any, index: Any, more: int = 0) -> Any:
        return self.b.gep(array, [self.b.add(index, WORD(more))])

    def load(self, array: Any, index: Any, more: int = 0) -> Vector:
        return self.b.load(self.b.bitcast(self.place(array, index, more), FLOATS.as_pointer()), align=4)

    def load_eight(self, array: Any, index: Any) -> Vector:
        return self.b.load(self.b.bitcast(self.place(array, index), EIGHT.as_pointer()), align=4)

    def integers(self, value: int, width: int, lanes: int = 16) -> Vector:
        return ir.Constant(ir.VectorType(ir.IntType(width), lanes), [value] * lanes)

    def spread_integer(self, number: Any, width: int, lanes: int = 16) -> Vector:
        """One integer, cut to so many bits, in every lane."""
        kind = ir.IntType(width)
        number = number if number.type == kind else self.b.trunc(number, kind)
        empty = ir.Constant(ir.VectorType(kind, lanes), ir.Undefined)
        return self.shuffle(self.b.insert_element(empty, number, INDEX(0)), empty, [0] * lanes)

    def load_integers(self, array: Any, index: Any, width: int, lanes: int = 16) -> Vector:
        kind = ir.VectorType(ir.IntType(width), lanes)
        return self.b.load(self.b.bitcast(self.place(array, index), kind.as_pointer()), align=width // 8)

    def store_integers(self, vector: Vector, array: Any, index: Any) -> None:
        width = vector.type.element.width
        self.b.store(vector, self.b.bitcast(self.place(array, index), vector.type.as_pointer()), align=width // 8)

    def load_fives(self, array: Any, *places: Any) -> Vector:
        """Five numbers from each of three places, and one more."""
        return self.fives(*(self.load_eight(array, place) for place in places))

    def fives(self, one: Vector, two: Vector, three: Vector) -> Vector:
        """The first five of eight lanes from each of three, and one more."""
        first = self.shuffle(one, two, [0, 1, 2, 3, 4, 8, 9, 10, 11, 12] + [0] * 6)
        third = self.shuffle(three, three, [0] * 10 + [0, 1, 2, 3, 4, 5])
        return self.shuffle(first, third, [*range(10), *range(26, 32)])

    def half_word(self, bits: Vector) -> Any:
        """Sixteen bits as a word."""
        return self.b.zext(self.b.bitcast(bits, HALF), WORD)

    def store(self, vector: Vector, array: Any, index: Any, more: int = 0) -> None:
        self.b.store(vector, self.b.bitcast(self.place(array, index, more), FLOATS.as_pointer()), align=4)

    def number(self, array: Any, index: int) -> Any:
        return self.b.load(self.b.gep(array, [WORD(index)]))

    def shuffle(self, one: Vector, two: Vector, lanes: list[int]) -> Vector:
        return self.b.shuffle_vector(one, two, ir.Constant(ir.VectorType(INDEX, len(lanes)), lanes))

    def add(self, one: Vector, two: Vector) -> Vector:
        return self.b.fadd(one, two)

    def sub(self, one: Vector, two: Vector) -> Vector:
        return self.b.fsub(one, two)

    def mul(self, *factors: Vector) -> Vector:
        product = factors[0]
        for factor in factors[1:]:
            product = self.b.fmul(product, factor)
        return product

    def less(self, one: Vector, two: Vector) -> Vector:
        return self.b.fcmp_ordered("<", one, two)

    def where(self, bits: Vector, one: Vector, two: Vector) -> Vector:
        return self.b.select(bits, one, two)

    def both(self, one: Vector, two: Vector) -> Vector:
        return self.b.and_(one, two)

    def smaller(self, one: Vector, two: Vector) -> Vector:
        return self.where(self.less(one, two), one, two)

    def sqrt(self, vector: Vector) -> Vector:
        kind = ir.FunctionType(FLOATS, [FLOATS])
        root = declare(self.b.module, kind, "llvm.sqrt.v16f32")
        return self.b.call(root, [vector])

    def bits(self, word: Any, z: int) -> Vector:
        """The 16 bits of a word that belong to one z."""
        part = self.b.trunc(self.b.lshr(word, WORD(16 * z)), HALF)
        return self.b.bitcast(part, ir.VectorType(ir.IntType(1), 16))

    def load_bits(self, words: Any, index: Any, more: int, z: int) -> Vector:
        """The same from a word in memory: a load of the mask register itself."""
        half = self.b.gep(self.b.bitcast(self.place(words, index, more), HALF.as_pointer()), [WORD(z)])
        return self.b.bitcast(self.b.load(half, align=2), ir.VectorType(ir.IntType(1), 16))

    def word(self, layers: list[Vector]) -> Any:
        """The bits of four z as one word."""
        word = WORD(0)
        for z, bits in enumerate(layers):
            word = self.b.or_(word, self.b.shl(self.half_word(bits), WORD(16 * z)))
        return word

    def around(self, T: Any, at: list[Any], own: list[Vector], z: int, steps: int) -> list[tuple[Vector, Vector]]:
        """The neighbours of one layer, so many steps down and up along z, y and x."""
        zm, zp = z - steps, z + steps
        below = own[zm] if zm >= 0 else self.load(T, at[1], 16 * (zm + 4))
        above = own[zp] if zp < 4 else self.load(T, at[2], 16 * (zp - 4))
        beside = [self.load(T, at[n], 16 * z) for n in (3, 4, 5, 6)]
        shuffled = [
            self.shuffle(own[z], other, lanes[steps])
            for other, lanes in zip(beside, (DOWN_Y, UP_Y, DOWN_X, UP_X), strict=True)
        ]
        return [(below, above), (shuffled[0], shuffled[1]), (shuffled[2], shuffled[3])]

    def root(self, terms: list[tuple[Vector, Vector]], rhs: Vector) -> Vector:
        """The t with the sum of a (t - b)+^2 over the terms (a, b) equal to rhs; inf if all b are inf.

        Without a branch: what is not used may be nan on the way.
        """
        for i, j in ((0, 1), (1, 2), (0, 1)):
            (ai, bi), (aj, bj) = terms[i], terms[j]
            swap = self.less(bj, bi)
            terms[i] = self.where(swap, aj, ai), self.where(swap, bj, bi)
            terms[j] = self.where(swap, ai, aj), self.where(swap, bi, bj)
        (a1, b1), (a2, b2), (a3, b3) = terms
        zero, two = self.const(0.0), self.const(2.0)
        d2, d3 = self.sub(b2, b1), self.sub(b3, b1)
        second = self.less(self.mul(a1, d2, d2), rhs)
        s = self.where(second, self.add(a1, a2), a1)
        m = self.where(second, self.mul(a2, d2), zero)
        r = self.sub(self.where(second, self.mul(a2, d2, d2), zero), rhs)
        ahead = self.add(self.sub(self.mul(s, d3, d3), self.mul(two, m, d3)), r)
        third = self.both(second, self.less(ahead, zero))
        s = self.where(third, self.add(s, a3), s)
        m = self.where(third, self.add(m, self.mul(a3, d3)), m)
        r = self.where(third, self.add(r, self.mul(a3, d3, d3)), r)
        rest = self.sub(self.mul(m, m), self.mul(s, r))
        rest = self.where(self.less(zero, rest), rest, zero)
        return self.add(b1, self.b.fdiv(self.add(m, self.sqrt(rest)), s))

    def even_root(self, b: list[Vector], rhs: Vector) -> Vector:
        """The same for three equal weights of 1: no weights to move, no division."""
        low, high = self.smaller(b[0], b[1]), self.where(self.less(b[0], b[1]), b[1], b[0])
        first = self.smaller(low, b[2])
        middle = self.where(self.less(low, b[2]), b[2], low)
        d2 = self.sub(self.smaller(high, middle), first)
        d3 = self.sub(self.where(self.less(high, middle), middle, high), first)
        zero, one = self.const(0.0), self.const(1.0)
        second = self.less(self.mul(d2, d2), rhs)
        apart = self.sub(d3, d2)
        third = self.both(second, self.less(self.add(self.mul(d3, d3), self.mul(apart, apart)), rhs))
        s = self.add(self.where(second, d2, zero), self.where(third, d3, zero))
        q = self.add(self.where(second, self.mul(d2, d2), zero), self.where(third, self.mul(d3, d3), zero))
        n = self.where(third, self.const(3.0), self.where(second, self.const(2.0), one))
        part = self.where(third, self.const(1.0 / 3.0), self.where(second, self.const(0.5), one))
        rest = self.sub(self.mul(s, s), self.mul(n, self.sub(q, rhs)))
        rest = self.where(self.less(zero, rest), rest, zero)
        return self.add(first, self.mul(part, self.add(s, self.sqrt(rest))))


def emitted(write: Callable[[Emit], Any]) -> Callable[..., Any]:
    """The code generator of an intrinsic that `write` writes; its arguments are in `Emit.data`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result = write(Emit(context, builder, signature, arguments))
        if isinstance(result, list):
            return context.make_tuple(builder, signature.return_type, result)
        return context.get_dummy_value() if result is None else result

    return generate
