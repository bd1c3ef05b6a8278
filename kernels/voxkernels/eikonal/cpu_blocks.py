"""Travel time on the CPU: what is done to one block of 4 x 4 x 4 voxels, see `cpu_lanes.py`."""

from __future__ import annotations

from typing import Any

from numba import types

from .cpu_lanes import FLOATS, Emit, Vector, emitted, intrinsic, ir, tuple_of

WORD = types.uint64
EARLIER = 1e-3  # by which part of a step a neighbour has to be earlier to be upwind in order 2
TIE = 1e-4  # by which part of a step a neighbour has to be earlier than the other, and one behind it than it, to count
SLACK = 5e-5  # by which part of a step one may be longer than a step: rounding does not make a voxel earlier

# The lanes of a block at each of its faces, and the same lanes as seen from the block beyond: towards -z, +z, -y, ...
BACK_Y, ON_Y = [min(i + 12, 15) for i in range(16)], [max(i - 12, 0) for i in range(16)]
BACK_X, ON_X = [min(i + 3, 15) for i in range(16)], [max(i - 3, 0) for i in range(16)]


@intrinsic
def relax(context: Any, T: Any, at: Any, inside: Any, pace: Any, p: Any, h: Any, even: Any) -> Any:
    """One pass of order 1 over a block: lower each time to what its neighbours allow. Returns the voxels that fell.

    T : times. at (7,) uint64. inside : the word of voxels that belong to the component. pace, p : slownesses, and
    where the block's are. h (3,) float32 : spacing. even : whether it is the same along z, y and x.
    """

    def write(e: Emit) -> Any:
        T, place, inside, pace, p, spacing, even = e.data
        at = [e.number(place, n) for n in range(7)]
        own = [e.load(T, at[0], 16 * z) for z in range(4)]
        h = [e.spread(e.number(spacing, n)) for n in range(3)]
        one = e.const(1.0)

        def solve(is_even: bool) -> list[Vector]:
            found = []
            square = [e.mul(s, s) for s in h]
            weight = square if is_even else [e.b.fdiv(one, s) for s in square]
            for z in range(4):
                slowness = e.load(pace, p, 16 * z)
                rhs = e.mul(slowness, slowness)
                b = [e.smaller(below, above) for below, above in e.around(T, at, own, z, 1)]
                if is_even:
                    found.append(e.even_root(b, e.mul(rhs, square[0])))
                else:
                    found.append(e.root(list(zip(weight, b, strict=True)), rhs))
            return found

        with e.b.if_else(even) as (then, otherwise):
            with then:
                quick, quick_block = solve(True), e.b.block
            with otherwise:
                general, general_block = solve(False), e.b.block
        fell = []
        for z in range(4):
            found = e.b.phi(FLOATS)
            found.add_incoming(quick[z], quick_block)
            found.add_incoming(general[z], general_block)
            fell.append(found)
        better = [e.both(e.bits(inside, z), e.less(fell[z], own[z])) for z in range(4)]
        for z in range(4):
            e.store(e.where(better[z], fell[z], own[z]), T, at[0], 16 * z)
        return e.word(better)

    return WORD(T, at, WORD, pace, WORD, h, types.boolean), emitted(write)


@intrinsic
def overtakes(context: Any, T: Any, at: Any) -> Any:
    """Six words: the voxels of a block that are earlier than the one beside them across -z, +z, -y, +y, -x, +x.

    Only the bits of the layer at that face mean anything.
    """

    def write(e: Emit) -> Any:
        T, place = e.data
        at = [e.number(place, n) for n in range(7)]
        own = [e.load(T, at[0], 16 * z) for z in range(4)]
        none = ir.Constant(ir.VectorType(ir.IntType(1), 16), None)
        words = [
            e.word([e.less(own[0], e.load(T, at[1], 48)), none, none, none]),
            e.word([none, none, none, e.less(own[3], e.load(T, at[2], 0))]),
        ]
        for n, lanes in ((3, BACK_Y), (4, ON_Y), (5, BACK_X), (6, ON_X)):
            beyond = [e.load(T, at[n], 16 * z) for z in range(4)]
            words.append(e.word([e.less(own[z], e.shuffle(beyond[z], beyond[z], lanes)) for z in range(4)]))
        return words

    return tuple_of(WORD, 6)(T, at), emitted(write)


@intrinsic
def upwind_of(context: Any, T: Any, at: Any, pace: Any, p: Any, h: Any) -> Any:
    """Twelve words, which order-1 neighbours the stencil of order 2 may use: for z, y, x each below, above, and beyond.

    "Below" and "above" are the voxels with an upwind neighbour there; "beyond" those whose neighbour two steps off is
    upwind of that neighbour.
    """

    def write(e: Emit) -> Any:
        T, place, pace, p, spacing = e.data
        at = [e.number(place, n) for n in range(7)]
        own = [e.load(T, at[0], 16 * z) for z in range(4)]
        margins = [e.mul(e.const(EARLIER), e.spread(e.number(spacing, n))) for n in range(3)]
        layers: list[list[Vector]] = [[] for _ in range(12)]
        for z in range(4):
            slowness = e.load(pace, p, 16 * z)
            near, far = e.around(T, at, own, z, 1), e.around(T, at, own, z, 2)
            for axis in range(3):
                margin = e.mul(margins[axis], slowness)
                for side in (0, 1):
                    layers[4 * axis + side].append(e.less(near[axis][side], e.sub(own[z], margin)))
                    beyond = e.less(far[axis][side], e.sub(near[axis][side], margin))
                    layers[4 * axis + 2 + side].append(beyond)
        return [e.word(layer) for layer in layers]

    return tuple_of(WORD, 12)(T, at, pace, p, h), emitted(write)


@intrinsic
def finite(context: Any, T: Any, b: Any) -> Any:
    """The voxels of the block at T[b] whose time is below inf."""

    def write(e: Emit) -> Any:
        T, b = e.data
        return e.word([e.less(e.load(T, b, 16 * z), e.const(float("inf"))) for z in range(4)])

    return WORD(T, WORD), emitted(write)


@intrinsic
def first_arrival(context: Any, T: Any, b: Any, voxels: Any) -> Any:
    """The earliest time among some voxels of the block at T[b]."""

    def write(e: Emit) -> Any:
        T, b, voxels = e.data
        late = e.const(float("inf"))
        layers = [e.where(e.bits(voxels, z), e.load(T, b, 16 * z), late) for z in range(4)]
        first = e.smaller(e.smaller(layers[0], layers[1]), e.smaller(layers[2], layers[3]))
        for by in (8, 4, 2, 1):
            first = e.smaller(first, e.shuffle(first, first, [(i + by) % 16 for i in range(16)]))
        return e.b.extract_element(first, ir.IntType(32)(0))

    return types.float32(T, WORD, WORD), emitted(write)


@intrinsic
def arrived(context: Any, T: Any, b: Any, starts: Any, s: Any, pace: Any, p: Any, keep: Any, limit: Any) -> Any:
    """Two words of a block at T[b]: what arrives by a time; what starts, and arrives less than `keep` before its start.

    starts, s : starting times, and where the block's are. keep : a length, times the slownesses at pace[p].
    """

    def write(e: Emit) -> Any:
        T, b, starts, s, pace, p, keep, limit = e.data
        late = e.const(float("inf"))
        known, kept = [], []
        for z in range(4):
            t, start = e.load(T, b, 16 * z), e.load(starts, s, 16 * z)
            known.append(e.both(e.less(t, late), e.b.fcmp_ordered("<=", t, e.spread(limit))))
            early = e.less(t, e.sub(start, e.mul(e.spread(keep), e.load(pace, p, 16 * z))))
            kept.append(e.both(e.less(start, late), e.b.not_(early)))
        return [e.word(known), e.word(kept)]

    single = types.float32
    return tuple_of(WORD, 2)(T, WORD, starts, WORD, pace, WORD, single, single), emitted(write)


@intrinsic
def begin_again(context: Any, T: Any, b: Any, starts: Any, s: Any, kept: Any, limit: Any) -> Any:
    """Set the times of the block at T[b]: `kept` voxels begin with starts[s:], others that are late with inf."""

    def write(e: Emit) -> None:
        T, b, starts, s, kept, limit = e.data
        late, last = e.const(float("inf")), e.spread(limit)
        for z in range(4):
            t = e.load(T, b, 16 * z)
            t = e.where(e.less(last, t), late, t)
            e.store(e.where(e.bits(kept, z), e.load(starts, s, 16 * z), t), T, b, 16 * z)

    return types.void(T, WORD, starts, WORD, WORD, types.float32), emitted(write)


@intrinsic
def wait(context: Any, T: Any, b: Any, free: Any, late: Any) -> Any:
    """Set the times of the `free` voxels of the block at T[b] that are later than `late` to inf."""

    def write(e: Emit) -> None:
        T, b, free, late = e.data
        for z in range(4):
            t = e.load(T, b, 16 * z)
            waits = e.both(e.bits(free, z), e.less(e.spread(late), t))
            e.store(e.where(waits, e.const(float("inf")), t), T, b, 16 * z)

    return types.void(T, WORD, WORD, types.float32), emitted(write)


@intrinsic
def follow(context: Any, T: Any, at: Any, free: Any, upwind: Any, u: Any, pace: Any, p: Any, cap: Any, h: Any) -> Any:
    """One pass of order 2 over a block. Returns the voxels whose time changed.

    free : the word of voxels to compute. upwind, u : the words of `upwind_of`, and where the block's are. cap (64,) :
    the latest time of each voxel. The rest as for `relax`.
    """

    def write(e: Emit) -> Any:
        T, place, free, upwind, u, pace, p, cap, spacing = e.data
        at = [e.number(place, n) for n in range(7)]
        own = [e.load(T, at[0], 16 * z) for z in range(4)]
        h = [e.spread(e.number(spacing, n)) for n in range(3)]
        weight = [e.b.fdiv(e.const(1.0), e.mul(s, s)) for s in h]
        late, third = e.const(float("inf")), e.const(1.0 / 3.0)
        changed, layers = [], []
        for z in range(4):
            slowness = e.load(pace, p, 16 * z)
            tie = e.mul(e.const(TIE), slowness)
            near, far = e.around(T, at, own, z, 1), e.around(T, at, own, z, 2)
            terms = []
            for axis in range(3):
                below, above, low_far, high_far = (e.load_bits(upwind, u, 4 * axis + n, z) for n in range(4))
                low = e.where(below, near[axis][0], late)
                high = e.where(above, near[axis][1], late)
                apart = e.mul(tie, h[axis])
                up = e.less(high, e.sub(low, apart))
                first = e.where(up, high, low)
                before = e.where(up, e.where(high_far, far[axis][1], late), e.where(low_far, far[axis][0], late))
                second = e.less(before, e.sub(first, apart))  # to choose times is quicker than to choose bits
                beyond = e.add(first, e.mul(third, e.sub(first, before)))
                heavy = e.mul(e.const(2.25), weight[axis])
                terms.append((e.where(second, heavy, weight[axis]), e.where(second, beyond, first)))
            t = e.smaller(e.root(terms, e.mul(slowness, slowness)), e.load(cap, ir.IntType(64)(16 * z)))
            new = e.where(e.bits(free, z), t, own[z])
            changed.append(e.b.fcmp_unordered("!=", new, own[z]))
            layers.append(new)
        for z in range(4):
            e.store(layers[z], T, at[0], 16 * z)
        return e.word(changed)

    return WORD(T, at, WORD, upwind, WORD, pace, WORD, cap, h), emitted(write)


@intrinsic
def hurry(context: Any, T: Any, at: Any, pace: Any, p: Any, paced: Any, may_last: Any, h: Any) -> Any:
    """Lower the times of a block that are later than a neighbour's by more than a step. Returns the voxels that fell.

    p (7,) : where the slownesses of the block and of the six beside it are. paced : whether they differ: a step takes
    as long as the slower voxel of both says then, and may last longer where `may_last` (6,) says so, the words of
    voxels for the steps from -z, +z, -y, +y, -x, +x. Times of inf stay.
    """

    def write(e: Emit) -> Any:
        T, place, pace, places, paced, words, spacing = e.data
        at, p = ([e.number(where, n) for n in range(7)] for where in (place, places))
        own = [e.load(T, at[0], 16 * z) for z in range(4)]
        h = [e.mul(e.spread(e.number(spacing, n)), e.const(1.0 + SLACK)) for n in range(3)]
        late = e.const(float("inf"))

        def times_by(varied: bool) -> list[Vector]:
            found = []
            slow = [e.load(pace, p[0], 16 * z) for z in range(4)]
            for z in range(4):
                near, by = e.around(T, at, own, z, 1), late
                paces = e.around(pace, p, slow, z, 1) if varied else []
                for axis in range(3):
                    if not varied:
                        by = e.smaller(e.add(e.smaller(*near[axis]), e.mul(h[axis], slow[z])), by)
                        continue
                    for side in (0, 1):
                        other = paces[axis][side]
                        slower = e.where(e.less(slow[z], other), other, slow[z])
                        t = e.add(near[axis][side], e.mul(h[axis], slower))
                        by = e.smaller(e.where(e.load_bits(words, ir.IntType(64)(0), 2 * axis + side, z), late, t), by)
                found.append(by)
            return found

        with e.b.if_else(paced) as (then, otherwise):
            with then:
                varied, varied_block = times_by(True), e.b.block
            with otherwise:
                equal, equal_block = times_by(False), e.b.block
        fell, layers = [], []
        for z in range(4):
            found = e.b.phi(FLOATS)
            found.add_incoming(varied[z], varied_block)
            found.add_incoming(equal[z], equal_block)
            layers.append(found)
        for z in range(4):
            fell.append(e.both(e.less(layers[z], own[z]), e.less(own[z], late)))
        for z in range(4):
            e.store(e.where(fell[z], layers[z], own[z]), T, at[0], 16 * z)
        return e.word(fell)

    return WORD(T, at, pace, p, types.boolean, may_last, h), emitted(write)


@intrinsic
def shorter(context: Any, T: Any, u: Any, v: Any, w: Any, lengths: Any, at: Any, slowness: Any, latest: Any) -> Any:
    """Which of the five voxels from u, from v and from w on are earlier than `latest` by a line, lengths[at:]."""

    def write(e: Emit) -> Any:
        T, u, v, w, lengths, at, slowness, latest = e.data
        times = e.load_fives(T, u, v, w)
        line = e.mul(e.load(lengths, at), e.spread(slowness))
        earlier = e.less(e.add(times, line), e.spread(latest))
        return e.half_word(earlier)

    return WORD(T, WORD, WORD, WORD, lengths, WORD, types.float32, types.float32), emitted(write)


@intrinsic
def closer(context: Any, T: Any, u: Any, v: Any, w: Any, squared: Any, at: Any, scale: Any, band: Any) -> Any:
    """For which of the five voxels from u, from v and from w on a way, squared[at:], beats T, and `band`.

    scale : from times to the lengths of the ways, and of `band`.
    """

    def write(e: Emit) -> Any:
        T, u, v, w, squared, at, scale, band = e.data
        times = e.load_fives(T, u, v, w)
        times, way, most = e.mul(times, e.spread(scale)), e.load(squared, at), e.spread(band)
        near = e.b.fcmp_ordered("<=", way, e.mul(most, most))
        return e.half_word(e.both(e.less(way, e.mul(times, times)), near))

    return WORD(T, WORD, WORD, WORD, squared, WORD, types.float32, types.float32), emitted(write)


@intrinsic
def walls(context: Any, kind: Any, u: Any, v: Any, w: Any) -> Any:
    """Which of the five voxels from u, from v and from w on are neither in the component nor sources: of kind 0."""

    def write(e: Emit) -> Any:
        kind, *places = e.data
        fives = e.fives(*(e.load_integers(kind, place, 8, 8) for place in places))
        return e.half_word(e.b.icmp_unsigned("==", fives, e.integers(0, 8)))

    return WORD(kind, WORD, WORD, WORD), emitted(write)


@intrinsic
def touching(context: Any, mark: Any, v: Any) -> Any:
    """Which of the 64 voxels from v on have a mark, and not in the top bit."""

    def write(e: Emit) -> Any:
        mark, v = e.data
        marked = e.b.icmp_signed(">", e.load_integers(mark, v, 8, 64), e.integers(0, 8, 64))
        return e.b.bitcast(marked, ir.IntType(64))

    return WORD(mark, WORD), emitted(write)


@intrinsic
def lowest_bit(context: Any, bits: Any) -> Any:
    """The number of the lowest bit that is set in a word that is not 0."""

    def write(e: Emit) -> Any:
        return e.b.cttz(e.data[0], ir.IntType(1)(1))

    return WORD(WORD), emitted(write)


@intrinsic
def pack(context: Any, box: Any, v: Any, sz: Any, sy: Any, scale: Any, T: Any, b: Any) -> Any:
    """Copy a block out of a box whose index steps are sz, sy and 1, times a number, nan as inf.

    Returns two words: the voxels that are not nan, and of these the finite ones.
    """

    def write(e: Emit) -> Any:
        box, v, sz, sy, scale, T, b = e.data
        four = ir.VectorType(ir.FloatType(), 4)
        late, factor = e.const(float("inf")), e.spread(scale)
        there, known = [], []
        for z in range(4):
            rows = []
            for y in range(4):
                row = e.b.add(v, e.b.add(e.b.mul(sz, ir.IntType(64)(z)), e.b.mul(sy, ir.IntType(64)(y))))
                rows.append(e.b.load(e.b.bitcast(e.b.gep(box, [row]), four.as_pointer()), align=4))
            halves = [e.shuffle(rows[i], rows[i + 1], list(range(8))) for i in (0, 2)]
            layer = e.mul(e.shuffle(halves[0], halves[1], list(range(16))), factor)
            there.append(e.b.fcmp_ordered("ord", layer, layer))
            known.append(e.less(layer, late))
            e.store(e.where(there[z], layer, late), T, b, 16 * z)
        return [e.word(there), e.word(known)]

    return tuple_of(WORD, 2)(box, WORD, WORD, WORD, types.float32, T, WORD), emitted(write)


@intrinsic
def unpack(context: Any, T: Any, b: Any, inside: Any, scale: Any, box: Any, v: Any, sz: Any, sy: Any) -> Any:
    """Copy a block into a box, times a number; nan where `inside` has no bit."""

    def write(e: Emit) -> None:
        T, b, inside, scale, box, v, sz, sy = e.data
        four = ir.VectorType(ir.FloatType(), 4)
        nowhere, factor = e.const(float("nan")), e.spread(scale)
        for z in range(4):
            layer = e.where(e.bits(inside, z), e.mul(e.load(T, b, 16 * z), factor), nowhere)
            for y in range(4):
                row = e.b.add(v, e.b.add(e.b.mul(sz, ir.IntType(64)(z)), e.b.mul(sy, ir.IntType(64)(y))))
                part = e.shuffle(layer, layer, list(range(4 * y, 4 * y + 4)))
                e.b.store(part, e.b.bitcast(e.b.gep(box, [row]), four.as_pointer()), align=4)

    return types.void(T, WORD, WORD, types.float32, box, WORD, WORD, WORD), emitted(write)
