"""Which tensors calibration collects statistics of."""

from __future__ import annotations

from studio.graph.model import ModelGraph
from studio.sim.config import QuantConfig
from studio.sim.placement import place
from studio.sim.plan import Plan, Role


def tensors_to_observe(graph: ModelGraph, config: QuantConfig, plan: Plan) -> list[str]:
    """Every tensor that some settings of the layers would observe: switching a layer on later must
    not need the data again. `plan` is `place(graph, config)`."""
    defaults = config.defaults.model_copy(update={"act_enabled": None})
    layers = {
        name: settings.model_copy(update={"act_enabled": None})
        for name, settings in config.layers.items()
    }
    everything = place(
        graph,
        config.model_copy(
            update={"defaults": defaults, "layers": layers, "source_encodings": False}
        ),
    )
    names = {row.name for row in everything.tensors.values() if row.observed}
    names |= set(plan.observed)
    names |= {
        row.name
        for row in plan.tensors.values()
        if row.from_file and row.role in (Role.INPUT, Role.ACTIVATION)
    }
    return [name for name in plan.tensors if name in names]
