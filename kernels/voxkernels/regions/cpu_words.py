"""64 labels of a line in vector instructions: where they change, whether they have rows, and their sums one by one.

The sums of noise go to rows of eight numbers, on a border of 64 bytes: count, sums of y, x, yy, yx, xx, largest n_x - x
and x + 1. What a voxel adds is a vector of eight numbers, which changes from voxel to voxel by another one.
"""

from numba import core, extending, types

from .._compile import where_equal

cgutils = core.cgutils
ir = cgutils.ir  # type: ignore[attr-defined]  # LLVM, as Numba itself writes it

N_PART = 8  # of the slice in hand: count, sums of y, x, yy, yx, xx; n_x - x0, x1
N_GREY = 5  # first value, sum of deviations from it, sum of their squares, minimum, maximum


def spread(builder, number, n):
    """LLVM for one number in every element of a vector."""
    index = ir.IntType(32)
    blank, every = ir.Constant(ir.VectorType(number.type, n), ir.Undefined), ir.Constant(ir.VectorType(index, n), None)
    return builder.shuffle_vector(builder.insert_element(blank, number, ir.Constant(index, 0)), blank, every)


def sixty_four(context, builder, kind, array, start):
    """LLVM for 64 elements of a flat array, from element `start` on."""
    lane = ir.IntType(kind.dtype.bitwidth)
    first = builder.gep(context.make_array(kind)(context, builder, array).data, [start])
    return builder.load(builder.bitcast(first, ir.VectorType(lane, 64).as_pointer()), align=lane.width // 8)


@extending.intrinsic
def run_ends(context, labels, start):
    """Bit k of the result: whether labels start + k and start + k + 1 of a flat array differ, for k < 64. Unchecked."""

    def generate(context, builder, signature, arguments):
        array, start = arguments
        following = builder.add(start, ir.Constant(start.type, 1))
        one, two = (sixty_four(context, builder, signature.args[0], array, at) for at in (start, following))
        return builder.not_(where_equal(context, builder, one, two))

    return types.uint64(labels, types.uint64), generate


@extending.intrinsic
def equal_bits(context, labels, start, value):
    """Bit k of the result: whether element start + k of a flat array is `value`, for k < 64. Unchecked."""

    def generate(context, builder, signature, arguments):
        found = sixty_four(context, builder, signature.args[0], *arguments[:2])
        return where_equal(context, builder, found, spread(builder, arguments[2], 64))

    return types.uint64(labels, types.uint64, labels.dtype), generate


@extending.intrinsic
def prefetch(context, array, index):
    """Ask for the memory of one element of a flat array, which need not exist."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        pointer = builder.gep(context.make_array(kind)(context, builder, arguments[0]).data, [arguments[1]])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0i8")
        builder.call(function, [builder.bitcast(pointer, byte), *(ir.Constant(number, k) for k in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


@extending.intrinsic
def all_below(context, labels, start, limit):
    """Whether elements start to start + 63 of a flat array are below `limit`, and not negative. Unchecked."""

    def generate(context, builder, signature, arguments):
        found = sixty_four(context, builder, signature.args[0], *arguments[:2])
        beyond = builder.icmp_unsigned(">=", found, spread(builder, arguments[2], 64))
        beyond = builder.bitcast(beyond, ir.IntType(64))
        return builder.icmp_unsigned("==", beyond, ir.IntType(64)(0))

    return types.boolean(labels, types.uint64, labels.dtype), generate


@extending.intrinsic
def lowest_bit(context, bits):
    """The number of the lowest bit that is set in a word; 64 in a word that is 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


@extending.intrinsic
def count_bits(context, bits):
    """How many bits of a word are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


def in_place(builder, number):
    """LLVM for a number that nothing is known of before this place: what is made of it is not made further up.

    Vectors of a path that is seldom taken were made for each line otherwise, taken or not.
    """
    same = ir.FunctionType(number.type, [number.type])
    return builder.asm(same, "", "=r,0", [number], side_effect=True)


@extending.intrinsic
def add_voxels(context, labels, at, n, part, plane, touched, n_touched, x, y, n_x):
    """Add voxels (y, x) to (y, x + n - 1), whose labels are elements at to at + n - 1 of a flat array, one by one.

    part, plane : flat, (N * 8,) on a border of 64 bytes and (N * 2,). n_x : voxels of a line. Returns how many rows are
                  touched then.

    What one voxel adds, and how that changes from one to the next, are vectors of eight numbers; the row of a label is
    one, too: the first six are sums, the last two maxima. The background has a row like all others.
    """

    def generate(context, builder, signature, arguments):
        number = ir.IntType(64)
        vector = ir.VectorType(number, N_PART)

        def pointer(which):
            kind = signature.args[which]
            return context.make_array(kind)(context, builder, arguments[which]).data

        def pack(*values):
            packed = ir.Constant(vector, [0] * N_PART)
            for k, value in enumerate(values):
                value = ir.Constant(number, value) if isinstance(value, int) else value
                packed = builder.insert_element(packed, value, ir.Constant(ir.IntType(32), k))
            return packed

        at, n, n_touched, x = (arguments[k] for k in (1, 2, 6, 7))
        y, n_x = (in_place(builder, arguments[k]) for k in (8, 9))
        one, zero = ir.Constant(number, 1), ir.Constant(number, 0)
        after = builder.add(y, one)
        odd = builder.add(builder.add(x, x), one)
        squares = (builder.mul(y, y), builder.mul(y, x), builder.mul(x, x))
        start = pack(1, y, x, *squares, builder.sub(n_x, x), builder.add(x, one))
        step = pack(0, 0, 1, 0, y, odd, -1, 1)
        value = cgutils.alloca_once_value(builder, start)
        change = cgutils.alloca_once_value(builder, step)
        count = cgutils.alloca_once_value(builder, n_touched)
        label_of, part_of, plane_of, touched_of = (pointer(k) for k in (0, 3, 4, 5))
        with cgutils.for_range(builder, n) as loop:
            label = builder.load(builder.gep(label_of, [builder.add(at, loop.index)]))
            row = label if label.type == number else builder.zext(label, number)
            place = builder.gep(part_of, [builder.mul(row, ir.Constant(number, N_PART))])
            place = builder.bitcast(place, vector.as_pointer())
            old, now = builder.load(place, align=64), builder.load(value)
            extent = builder.gep(plane_of, [builder.add(row, row)])
            first = builder.icmp_signed("==", builder.extract_element(old, ir.Constant(ir.IntType(32), 0)), zero)
            with builder.if_then(first, likely=False):
                builder.store(row, builder.gep(touched_of, [builder.load(count)]))
                builder.store(builder.add(builder.load(count), one), count)
                builder.store(y, extent)
            builder.store(after, builder.gep(extent, [one]))
            larger = builder.select(builder.icmp_signed(">", old, now), old, now)
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), N_PART), [0, 1, 2, 3, 4, 5, 14, 15])
            builder.store(builder.shuffle_vector(builder.add(old, now), larger, lanes), place, align=64)
            builder.store(builder.add(now, builder.load(change)), value)
            builder.store(builder.add(builder.load(change), pack(0, 0, 0, 0, 0, 2)), change)
        return builder.load(count)

    number = types.int64
    return number(labels, number, number, part, plane, touched, number, number, number, number), generate


@extending.intrinsic
def add_grey_voxels(context, labels, at, n, image, grey):
    """Add the grey values of voxels at to at + n - 1 to the rows (N * 5,) of their labels, as `cpu_grey` has them.

    labels, image, grey : flat. A row whose minimum is above its maximum has had no value.
    """

    def generate(context, builder, signature, arguments):
        index, kind = ir.IntType(64), signature.args[3].dtype
        real, lane = ir.DoubleType(), ir.IntType(32)
        vector = ir.VectorType(real, 4)
        label_of, image_of, grey_of = (
            context.make_array(signature.args[k])(context, builder, arguments[k]).data for k in (0, 3, 4)
        )
        with cgutils.for_range(builder, arguments[2]) as loop:
            place = builder.add(arguments[1], loop.index)
            label = builder.load(builder.gep(label_of, [place]))
            row = label if label.type == index else builder.zext(label, index)
            value = context.cast(builder, builder.load(builder.gep(image_of, [place])), kind, types.float64)
            first_of = builder.gep(grey_of, [builder.mul(row, index(N_GREY))])
            rest_of = builder.bitcast(builder.gep(first_of, [index(1)]), vector.as_pointer())
            rest = builder.load(rest_of, align=8)
            low, high = (builder.extract_element(rest, lane(k)) for k in (2, 3))
            with builder.if_then(builder.fcmp_ordered(">", low, high), likely=False):
                builder.store(value, first_of)
                start = ir.Constant(vector, [0.0] * 4)
                for k in (2, 3):
                    start = builder.insert_element(start, value, lane(k))
                builder.store(start, rest_of, align=8)
            rest = builder.load(rest_of, align=8)
            deviation = builder.fsub(value, builder.load(first_of))
            now = ir.Constant(vector, ir.Undefined)
            for k, element in enumerate((deviation, builder.fmul(deviation, deviation), value, value)):
                now = builder.insert_element(now, element, lane(k))
            lower = builder.select(builder.fcmp_ordered("<", now, rest), now, rest)
            higher = builder.select(builder.fcmp_ordered(">", now, rest), now, rest)
            extent = builder.shuffle_vector(lower, higher, ir.Constant(ir.VectorType(lane, 4), [0, 1, 2, 7]))
            total = builder.shuffle_vector(
                builder.fadd(rest, now), extent, ir.Constant(ir.VectorType(lane, 4), [0, 1, 6, 7])
            )
            builder.store(total, rest_of, align=8)
        return context.get_dummy_value()

    return types.void(labels, types.int64, types.int64, image, grey), generate
