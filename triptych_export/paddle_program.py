"""Edits of a saved Paddle program (model.pdmodel), so that its tensors are those of the stages.

A program is a protobuf message: variables by name, and operators that read and write them.
"""

from __future__ import annotations

from pathlib import Path

from paddle.base.proto import framework_pb2

from triptych_export.errors import ExportError
from triptych_export.stages import Stage

FLOAT32 = framework_pb2.VarType.FP32
INT32 = framework_pb2.VarType.INT32
INT64 = framework_pb2.VarType.INT64


def read(path: Path) -> framework_pb2.ProgramDesc:
    """The program in `path`; ExportError if it is none."""
    program = framework_pb2.ProgramDesc()
    try:
        program.ParseFromString(path.read_bytes())
    except Exception as error:
        raise ExportError(f"{path} is no Paddle program: {error}") from None
    if not program.blocks:
        raise ExportError(f"{path} holds no program")
    return program


def write(program: framework_pb2.ProgramDesc, path: Path) -> None:
    path.write_bytes(program.SerializeToString())


def inputs(program: framework_pb2.ProgramDesc) -> list[str]:
    """Names of the tensors that are fed, in the order of the traced function's arguments."""
    feeds = [op for op in program.blocks[0].ops if op.type == "feed"]
    return [op.outputs[0].arguments[0] for op in sorted(feeds, key=_column)]


def outputs(program: framework_pb2.ProgramDesc) -> list[str]:
    """Names of the tensors that are fetched, in order."""
    fetches = [op for op in program.blocks[0].ops if op.type == "fetch"]
    return [op.inputs[0].arguments[0] for op in sorted(fetches, key=_column)]


def shape(program: framework_pb2.ProgramDesc, name: str) -> list[int]:
    """Dimensions of the tensor `name`; -1 where any size will do."""
    return list(_tensor(program, name).dims)


def data_type(program: framework_pb2.ProgramDesc, name: str) -> int:
    """Type of the tensor `name`: FLOAT32, INT32, INT64 or another of the protobuf's numbers."""
    return _tensor(program, name).data_type


def fit_to_stage(program: framework_pb2.ProgramDesc, stage: Stage) -> None:
    """Give `program` the names, types and free axes of `stage`, whatever it was traced with.

    Inputs are taken in order, the first output alone stays. Token numbers become int32, timesteps
    float32 and one for each row; where the program computes with other types, a cast goes before.
    """
    if len(inputs(program)) != len(stage.inputs):
        raise ExportError(
            f"{stage.name}: the program takes {inputs(program)}, the stage {list(stage.inputs)}"
        )
    for old, (new, axes) in zip(inputs(program), stage.inputs.items()):
        _rename(program, old, new)
        wanted = INT32 if new == "input_ids" else FLOAT32
        if data_type(program, new) != wanted:
            _cast_input(program, new, wanted)
        if new == "timestep":
            _tensor(program, new).dims[:] = [-1] * len(axes)
    first, *others = outputs(program)
    for name in others:
        _drop_output(program, name)
    _rename(program, first, stage.output)


def group_norm_in_four_dimensions(program: framework_pb2.ProgramDesc) -> None:
    """Give every group_norm a fourth axis where it has three, and take it away after it.

    paddle2onnx writes a group_norm of three dimensions that computes something else.
    """
    block = program.blocks[0]
    for index in reversed(range(len(block.ops))):
        op = block.ops[index]
        if op.type != "group_norm":
            continue
        source, result = _argument(op.inputs, "X"), _argument(op.outputs, "Y")
        if len(_tensor(program, source).dims) != 3:
            continue
        for name in (source, result):
            _add_tensor(program, f"{name}@4d", like=name, dims=[*shape(program, name), 1])
            _add_tensor(program, f"{name}@shape", like=name, dims=[0, *shape(program, name)])
        _set_argument(op.inputs, "X", f"{source}@4d")
        _set_argument(op.outputs, "Y", f"{result}@4d")
        squeeze = _axis_op("squeeze2", f"{result}@4d", result, f"{result}@shape")
        unsqueeze = _axis_op("unsqueeze2", source, f"{source}@4d", f"{source}@shape")
        block.ops.insert(index + 1, squeeze)
        block.ops.insert(index, unsqueeze)


def _cast_input(program: framework_pb2.ProgramDesc, name: str, wanted: int) -> None:
    """Feed `name` as `wanted`; the program goes on with a variable of the type that it had."""
    inner = f"{name}@cast"
    had = data_type(program, name)
    _add_tensor(program, inner, like=name, dims=shape(program, name))
    ops = program.blocks[0].ops
    for op in ops:
        if op.type != "feed":
            _replace_argument(op.inputs, name, inner)
    _tensor(program, name).data_type = wanted
    cast = framework_pb2.OpDesc(type="cast")
    cast.inputs.add(parameter="X", arguments=[name])
    cast.outputs.add(parameter="Out", arguments=[inner])
    cast.attrs.add(name="in_dtype", type=framework_pb2.INT, i=wanted)
    cast.attrs.add(name="out_dtype", type=framework_pb2.INT, i=had)
    after_feeds = next(i for i, op in enumerate(ops) if op.type != "feed")
    ops.insert(after_feeds, cast)


def _drop_output(program: framework_pb2.ProgramDesc, name: str) -> None:
    ops = program.blocks[0].ops
    for index, op in enumerate(ops):
        if op.type == "fetch" and op.inputs[0].arguments[0] == name:
            del ops[index]
            return


def _rename(program: framework_pb2.ProgramDesc, old: str, new: str) -> None:
    if old == new:
        return
    if any(var.name == new for var in program.blocks[0].vars):
        _rename(program, new, f"{new}@inner")
    _variable(program, old).name = new
    for op in program.blocks[0].ops:
        _replace_argument(op.inputs, old, new)
        _replace_argument(op.outputs, old, new)


def _replace_argument(slots, old: str, new: str) -> None:
    for slot in slots:
        slot.arguments[:] = [new if name == old else name for name in slot.arguments]


def _argument(slots, parameter: str) -> str:
    return next(slot.arguments[0] for slot in slots if slot.parameter == parameter)


def _set_argument(slots, parameter: str, name: str) -> None:
    for slot in slots:
        if slot.parameter == parameter:
            slot.arguments[:] = [name]


def _axis_op(kind: str, source: str, result: str, old_shape: str) -> framework_pb2.OpDesc:
    op = framework_pb2.OpDesc(type=kind)
    op.inputs.add(parameter="X", arguments=[source])
    op.outputs.add(parameter="Out", arguments=[result])
    op.outputs.add(parameter="XShape", arguments=[old_shape])
    op.attrs.add(name="axes", type=framework_pb2.INTS, ints=[3])
    return op


def _add_tensor(program: framework_pb2.ProgramDesc, name: str, like: str, dims: list[int]) -> None:
    if any(var.name == name for var in program.blocks[0].vars):
        return
    added = program.blocks[0].vars.add()
    added.CopyFrom(_variable(program, like))
    added.name = name
    added.type.lod_tensor.tensor.dims[:] = dims


def _tensor(program: framework_pb2.ProgramDesc, name: str) -> framework_pb2.VarType.TensorDesc:
    return _variable(program, name).type.lod_tensor.tensor


def _variable(program: framework_pb2.ProgramDesc, name: str) -> framework_pb2.VarDesc:
    return next(var for var in program.blocks[0].vars if var.name == name)


def _column(op: framework_pb2.OpDesc) -> int:
    return next(attr.i for attr in op.attrs if attr.name == "col")
