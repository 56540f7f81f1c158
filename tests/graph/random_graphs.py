"""Random graphs of the operators that preparation rewrites, most of them in awkward places."""

from __future__ import annotations

import numpy as np
import onnx
from channels_last import TO_FIRST, TO_LAST, ChannelsLast

SIZE, CHANNELS = 6, 4


class RandomGraph:
    """Tensors [N, 6, 6, 4] (last) or [N, 4, 6, 6] (first), combined at random."""

    def __init__(self, seed: int, length: int = 14) -> None:
        self.net = ChannelsLast(seed)
        self.random = np.random.default_rng(seed)
        self.values: list[tuple[str, bool]] = [("x", True)]  # name, channels last
        for _ in range(length):
            self.values.append(self._step())

    def model(self) -> onnx.ModelProto:
        name, last = self.values[-1]
        kind = self.random.integers(4)
        if kind == 0:
            axes = [1, 2] if last else [2, 3]
            name = self.net.op("ReduceMean", name, axes=axes, keepdims=int(self.random.integers(2)))
        elif kind == 1:
            flat = self.net.op("Reshape", name, self.net.constant(np.array([0, -1])))
            rows = SIZE * SIZE * CHANNELS
            name = self.net.op("MatMul", flat, self.net.floats(rows, 3))
        elif kind == 2:
            name = self.net.op("Transpose", name, perm=[0, 2, 1, 3])
        return self.net.model(name, ("N", SIZE, SIZE, CHANNELS))

    def _pick(self) -> tuple[str, bool]:
        recent = self.values[-4:] if self.random.integers(3) == 0 else self.values[-1:]
        return recent[self.random.integers(len(recent))]

    def _step(self) -> tuple[str, bool]:
        value, last = self._pick()
        steps = [self._turn, self._turn, self._conv, self._conv, self._batch_norm, self._scale,
                 self._scale, self._both, self._dense, self._unary, self._reduce, self._concat,
                 self._pad, self._regroup, self._nothing, self._softmax, self._pool,
                 self._shape]  # fmt: skip
        return steps[self.random.integers(len(steps))](value, last)

    def _turn(self, value: str, last: bool) -> tuple[str, bool]:
        return self.net.op("Transpose", value, perm=TO_FIRST if last else TO_LAST), not last

    def _first(self, value: str, last: bool) -> str:
        return self._turn(value, last)[0] if last else value

    def _conv(self, value: str, last: bool) -> tuple[str, bool]:
        value, net = self._first(value, last), self.net
        kind = "Conv" if self.random.integers(4) else "ConvTranspose"
        group = int(self.random.choice([1, 2, 4]))
        weight = net.floats(CHANNELS, CHANNELS // group, 1, 1)
        if self.random.integers(2) and kind == "Conv":
            auto = str(self.random.choice(["SAME_UPPER", "SAME_LOWER"]))
            weight = net.floats(CHANNELS, CHANNELS // group, 2, 2)
            return net.op(kind, value, weight, group=group, auto_pad=auto), False
        return net.op(kind, value, weight, net.floats(CHANNELS), group=group), False

    def _dense(self, value: str, last: bool) -> tuple[str, bool]:
        if not last:
            value = self._turn(value, last)[0]
        return self.net.op("MatMul", value, self.net.floats(CHANNELS, CHANNELS)), True

    def _batch_norm(self, value: str, last: bool) -> tuple[str, bool]:
        value, net = self._first(value, last), self.net
        var = net.constant(self.random.uniform(0.3, 2, CHANNELS).astype(np.float32))
        statistics = [net.floats(CHANNELS), net.floats(CHANNELS), net.floats(CHANNELS), var]
        return net.op("BatchNormalization", value, *statistics), False

    def _constant(self, last: bool) -> str:
        shapes = [(), (1,), (CHANNELS,) if last else (CHANNELS, 1, 1),
                  (1, 1, 1, CHANNELS) if last else (1, CHANNELS, 1, 1), (SIZE, 1)]  # fmt: skip
        array = self.random.uniform(0.5, 2, shapes[self.random.integers(len(shapes))])
        return self.net.constant(array.astype(np.float32))

    def _scale(self, value: str, last: bool) -> tuple[str, bool]:
        operands = [value, self._constant(last)]
        kind = str(self.random.choice(["Mul", "Add", "Sub", "Div"]))
        if kind != "Div" and self.random.integers(2):
            operands.reverse()
        return self.net.op(kind, *operands), last

    def _both(self, value: str, last: bool) -> tuple[str, bool]:
        other, other_last = self._pick()
        if other_last != last:
            other = self._turn(other, other_last)[0]
        return self.net.op(str(self.random.choice(["Add", "Mul", "Max"])), value, other), last

    def _unary(self, value: str, last: bool) -> tuple[str, bool]:
        return self.net.op(str(self.random.choice(["Relu", "Sigmoid", "Tanh"])), value), last

    def _reduce(self, value: str, last: bool) -> tuple[str, bool]:
        axes = [1, 2] if last else [2, 3]
        mean = self.net.op("ReduceMean", value, axes=axes, keepdims=1)
        return self.net.op("Mul", value, mean), last

    def _concat(self, value: str, last: bool) -> tuple[str, bool]:
        axis = 3 if last else 1
        both = self.net.op("Concat", value, self.net.op("Neg", value), axis=axis)
        bounds = [self.net.constant(np.array([n])) for n in (2, 2 + CHANNELS, axis)]
        return self.net.op("Slice", both, *bounds), last

    def _pad(self, value: str, last: bool) -> tuple[str, bool]:
        pads = [0, 1, 1, 0, 0, 0, 0, 0] if last else [0, 0, 1, 1, 0, 0, 0, 0]
        wide = self.net.op("Pad", value, self.net.constant(np.array(pads)))
        if last or self.random.integers(2):
            starts = self.net.constant(np.array([0, 0]))
            ends = self.net.constant(np.array([SIZE, SIZE]))
            axes = self.net.constant(np.array([1, 2] if last else [2, 3]))
            return self.net.op("Slice", wide, starts, ends, axes), last
        return self.net.op("AveragePool", wide, kernel_shape=[2, 2]), last

    def _pool(self, value: str, last: bool) -> tuple[str, bool]:
        value = self._first(value, last)
        auto = str(self.random.choice(["SAME_UPPER", "SAME_LOWER"]))
        kind = str(self.random.choice(["MaxPool", "AveragePool"]))
        return self.net.op(kind, value, kernel_shape=[3, 3], auto_pad=auto), False

    def _regroup(self, value: str, last: bool) -> tuple[str, bool]:
        shape = [0, SIZE, SIZE, CHANNELS] if last else [0, CHANNELS, SIZE, SIZE]
        between = [0, SIZE * SIZE, CHANNELS] if last else [0, CHANNELS, SIZE * SIZE]
        flat = self.net.op("Reshape", value, self.net.constant(np.array(between)))
        if self.random.integers(2):
            shape_of_one = (CHANNELS,) if last else (CHANNELS, 1)
            flat = self.net.op("Mul", flat, self.net.floats(*shape_of_one))
        return self.net.op("Reshape", flat, self.net.constant(np.array(shape))), last

    def _nothing(self, value: str, last: bool) -> tuple[str, bool]:
        net, kind = self.net, self.random.integers(5)
        if kind == 0:
            return net.op("Identity", value), last
        if kind == 1:
            return net.op("Mul", value, net.constant(np.ones((1, 1), np.float32))), last
        if kind == 2:
            axes = net.constant(np.array([1]))
            return net.op("Squeeze", net.op("Unsqueeze", value, axes), axes), last
        if kind == 3:
            return net.op("Cast", net.op("Cast", value, to=11), to=1), last
        return net.op("Expand", value, net.constant(np.array([1, 1, 1]))), last

    def _softmax(self, value: str, last: bool) -> tuple[str, bool]:
        return self.net.op("Softmax", value, axis=-1 if last else 1), last

    def _shape(self, value: str, last: bool) -> tuple[str, bool]:
        return self.net.op("Reshape", value, self.net.op("Shape", value)), last
