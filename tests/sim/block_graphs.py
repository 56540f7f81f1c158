"""Residual blocks and a transformer block, for the tests of targets."""

from __future__ import annotations

from sim_graphs import graph_of

from studio.graph.model import ModelGraph


def resnet() -> ModelGraph:
    """A stem, an identity block, a downsample block and a head, as in ResNet."""
    return graph_of(
        """(float[n, 3, 8, 8] x) => (float[n, 5] y) {
            stem = Conv<pads = [1, 1, 1, 1]>(x, w0)
            relu0 = Relu(stem)
            pool = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(relu0)
            a1 = Conv<pads = [1, 1, 1, 1]>(pool, w1)
            a2 = Relu(a1)
            a3 = Conv<pads = [1, 1, 1, 1]>(a2, w2)
            sum1 = Add(a3, pool)
            out1 = Relu(sum1)
            b1 = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(out1, w3)
            b2 = Relu(b1)
            b3 = Conv<pads = [1, 1, 1, 1]>(b2, w4)
            down = Conv<strides = [2, 2]>(out1, w5)
            sum2 = Add(b3, down)
            out2 = Relu(sum2)
            gap = GlobalAveragePool(out2)
            flat = Flatten(gap)
            y = Gemm<transB = 1>(flat, w6, b6)
        }""",
        w0=(4, 3, 3, 3),
        w1=(4, 4, 3, 3),
        w2=(4, 4, 3, 3),
        w3=(4, 4, 3, 3),
        w4=(4, 4, 3, 3),
        w5=(4, 4, 1, 1),
        w6=(5, 4),
        b6=(5,),
    )


def transformer() -> ModelGraph:
    """LayerNorm, attention with a residual, a linear layer: rows of 64 numbers."""
    return graph_of(
        """(float[n, 6, 64] x) => (float[n, 6, 16] y) {
            root = Constant<value_float = 8.0>()
            ln = LayerNormalization<axis = -1>(x, gamma, beta)
            q = MatMul(ln, wq)
            k = MatMul(ln, wk)
            v = MatMul(ln, wv)
            kt = Transpose<perm = [0, 2, 1]>(k)
            scores = MatMul(q, kt)
            scaled = Div(scores, root)
            p = Softmax<axis = -1>(scaled)
            a = MatMul(p, v)
            res = Add(a, ln)
            m = MatMul(res, wo)
            y = Add(m, bo)
        }""",
        gamma=(64,),
        beta=(64,),
        wq=(64, 64),
        wk=(64, 64),
        wv=(64, 64),
        wo=(64, 16),
        bo=(16,),
    )
