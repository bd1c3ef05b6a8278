"""Words of 64 bits, and flat arrays 64 elements at a time in vector instructions that leave such a word.

Written in LLVM's own vectors, which every processor has in some width. Not checked here: what an intrinsic reads must
exist.
"""

from numba import core, extending, types

ir = core.cgutils.ir  # type: ignore[attr-defined]  # LLVM, as Numba itself writes it


@extending.intrinsic
def lowest_bit(context, bits):
    """The number of the lowest bit that is set in a word that is not 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@extending.intrinsic
def count_bits(context, bits):
    """How many bits of a word are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


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
def run_ends(context, a, b, start):
    """Bit k of the result: whether a run of two flat arrays ends with pixel start + k, for k < 64. Unchecked."""

    def generate(context, builder, signature, arguments):
        def differs(kind, array, start):
            lane = ir.IntType(kind.dtype.bitwidth)
            vector = ir.VectorType(lane, 64).as_pointer()
            first = builder.gep(context.make_array(kind)(context, builder, array).data, [start])
            second = builder.gep(first, [ir.Constant(start.type, 1)])
            own, following = (
                builder.load(builder.bitcast(pointer, vector), align=lane.width // 8) for pointer in (first, second)
            )
            return builder.xor(own, following)

        changed = builder.or_(*(differs(signature.args[k], arguments[k], arguments[2]) for k in range(2)))
        return builder.bitcast(builder.icmp_signed("!=", changed, ir.Constant(changed.type, None)), ir.IntType(64))

    return types.uint64(a, b, types.uint64), generate


@extending.intrinsic
def all_below(context, array, start, limit):
    """Whether elements start to start + 63 of a flat array are below `limit`, and not negative. Unchecked."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        lane, number = ir.IntType(kind.dtype.bitwidth), ir.IntType(32)
        vector = ir.VectorType(lane, 64)
        first = builder.gep(context.make_array(kind)(context, builder, arguments[0]).data, [arguments[1]])
        found = builder.load(builder.bitcast(first, vector.as_pointer()), align=lane.width // 8)
        blank, every = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(number, 64), None)
        limits = builder.shuffle_vector(builder.insert_element(blank, arguments[2], number(0)), blank, every)
        beyond = builder.bitcast(builder.icmp_unsigned(">=", found, limits), ir.IntType(64))
        return builder.icmp_unsigned("==", beyond, ir.IntType(64)(0))

    return types.boolean(array, types.uint64, array.dtype), generate
