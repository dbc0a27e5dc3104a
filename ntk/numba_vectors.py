"""Vectors of a CPU's registers for Numba: a type with lanes, and the operations that the engine
needs.

Each lane is computed on its own, in the order written: its bits depend neither on its neighbours
nor on the width.
"""

import operator

from llvmlite import ir
from numba.core import cgutils, registry, types
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic, overload

# Bytes of a vector.
WIDTH = 64 if "+avx512f" in registry.cpu_target.target_context.codegen().magic_tuple()[2] else 32


class Vector(types.Type):
    """WIDTH bytes of numbers of one type, its `dtype`."""

    def __init__(self, dtype):
        self.dtype, self.lanes = dtype, 8 * WIDTH // dtype.bitwidth
        super().__init__(f"Vector({dtype}, {self.lanes})")


@register_default(Vector)
class VectorModel(models.PrimitiveModel):
    """In LLVM it is a vector as well."""

    def __init__(self, manager, kind):
        super().__init__(
            manager, kind, ir.VectorType(manager.lookup(kind.dtype).get_value_type(), kind.lanes)
        )


def lanes_of(array):
    """Numbers of an array in a vector."""
    return WIDTH // array.itemsize


@overload(lanes_of)
def typed_lanes_of(array):
    """The same, while compiling: a constant, by which nothing is divided at run time."""
    lanes = Vector(array.dtype).lanes
    return lambda array: lanes


def pointer(context, builder, array, arguments, vector):
    """Where the lanes are in an array [m], arguments = (array, index): from array[index] on."""
    address = builder.gep(
        context.make_array(array)(context, builder, arguments[0]).data,
        [arguments[1]],
        inbounds=True,
    )
    return builder.bitcast(address, context.get_value_type(vector).as_pointer())


@intrinsic
def load(typing, array, index):
    """The vector array[index : index + lanes], aligned like a single number."""
    vector = Vector(array.dtype)

    def generate(context, builder, signature, args):
        return builder.load(
            pointer(context, builder, array, args, vector), align=array.dtype.bitwidth // 8
        )

    return vector(array, types.intp), generate


@intrinsic
def store(typing, array, index, vector):
    """array[index : index + lanes] = vector."""

    def generate(context, builder, signature, args):
        builder.store(
            args[2], pointer(context, builder, array, args, vector), align=array.dtype.bitwidth // 8
        )
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def splat(typing, numbers):
    """A tuple of vectors, with one number in all lanes each, from a tuple of numbers."""
    vectors = types.UniTuple(Vector(numbers.dtype), numbers.count)

    def generate(context, builder, signature, args):
        kind, zero = context.get_value_type(vectors.dtype), ir.Constant(ir.IntType(32), 0)
        empty, mask = (
            ir.Constant(kind, ir.Undefined),
            ir.Constant(ir.VectorType(zero.type, kind.count), None),
        )
        firsts = [
            builder.insert_element(empty, x, zero) for x in cgutils.unpack_tuple(builder, args[0])
        ]
        filled = [builder.shuffle_vector(x, empty, mask) for x in firsts]
        if WIDTH == 32:  # AVX-512 has twice as many registers, and gains nothing
            filled = [from_memory(builder, x) for x in filled]
        return context.make_tuple(builder, vectors, filled)

    return vectors(numbers), generate


def from_memory(builder, vector):
    """The same vector, read from the stack after LLVM has lost sight of what lies there.

    LLVM would fill a vector anew from its number wherever a CPU has no register left for it. One
    that it knows nothing about it reads whole, which costs nothing as an operand of an instruction.
    """
    slot = cgutils.alloca_once_value(builder, vector)
    # No instruction: only a promise that the memory may have changed.
    touch = ir.FunctionType(ir.VoidType(), [slot.type])
    builder.asm(touch, "", "r,~{memory}", [slot], True)
    return builder.load(slot)


def operation(arity, emit):
    """A function of `arity` vectors.

    LLVM's of that name, or an instruction, emit(builder, *vectors).
    """

    def generate(context, builder, signature, args):
        if callable(emit):
            return emit(builder, *args)
        kind = args[0].type
        name = f"llvm.{emit}.v{kind.count}{kind.element.intrinsic_name}"
        return builder.call(
            builder.module.declare_intrinsic(name, fnty=ir.FunctionType(kind, [kind] * arity)), args
        )

    typings = {
        1: lambda typing, x: (x(x), generate),
        2: lambda typing, x, y: (x(x, y), generate),
        3: lambda typing, x, y, z: (x(x, y, z), generate),
        4: lambda typing, x, y, z, u: (x(x, y, z, u), generate),
    }
    return intrinsic(typings[arity])


root, absolute, negative = (
    operation(1, "sqrt"),
    operation(1, "fabs"),
    operation(1, ir.IRBuilder.fneg),
)
fma = operation(3, "fmuladd")  # x y + z, rounded once where the CPU can
where_less = operation(
    4, lambda builder, x, y, yes, no: builder.select(builder.fcmp_ordered("<", x, y), yes, no)
)


def define(operator_function, emit):
    """Let an operator of two vectors be that instruction of LLVM."""
    apply = operation(2, emit)

    @overload(operator_function, inline="always")
    def typed(x, y):
        return (lambda x, y: apply(x, y)) if isinstance(x, Vector) and x == y else None


define(operator.add, ir.IRBuilder.fadd)
define(operator.sub, ir.IRBuilder.fsub)
define(operator.mul, ir.IRBuilder.fmul)
define(operator.truediv, ir.IRBuilder.fdiv)
