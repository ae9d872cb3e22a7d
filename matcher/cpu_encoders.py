"""The encoders on a CPU, by ONNX Runtime: equal to torch's up to rounding, in half its time or less."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from crosstie.matcher.encoder_graph import GRAPH_INPUT, GRAPH_OUTPUTS, encoder_graph
from crosstie.types import Kind

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions


@dataclass(frozen=True, slots=True, eq=False)
class CpuEncoders:
    """One session for each kind of image. Safe in many threads, but neither pickled nor forked."""

    sessions: Mapping[Kind, InferenceSession]

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[np.float32]], *, threads: int) -> Self:
        """Build the encoders.

        Parameters
        ----------
        tensors : Mapping[str, NDArray[np.float32]]
            Weights by the names of `network.MatchingNetwork.state_dict`, after `network.fuse`.
        threads : int
            Threads that a call may use, the calling one included.
        """
        options = _options(threads)
        sessions = {}
        for kind in Kind:
            prefix = f"encoders.{kind.value}."
            of_kind = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            sessions[kind] = _silent_runtime().InferenceSession(
                encoder_graph(of_kind), options, providers=["CPUExecutionProvider"]
            )
        return cls(sessions)

    def features(
        self, plane: NDArray[np.float32], kind: Kind
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features of a normalised plane of one kind.

        Parameters
        ----------
        plane : NDArray[np.float32]
            (H, W), multiples of `network.COARSEST_STRIDE_PX`.

        Returns
        -------
        shallow : NDArray[np.float32]
            (1, 16, H, W)
        deep : NDArray[np.float32]
            (1, 32, H / 8, W / 8)
        """
        shallow, deep = self.sessions[kind].run(GRAPH_OUTPUTS, {GRAPH_INPUT: plane[None, None]})
        return shallow, deep


@functools.cache
def _silent_runtime() -> Any:
    """ONNX Runtime. Its wheels tell Microsoft of their use, unless they are forbidden to before they load."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def _options(threads: int) -> SessionOptions:
    options = _silent_runtime().SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads that wait by spinning slow each other down where processes share cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    _share_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.enable_mem_pattern = False  # it reserves anew for every shape of a plane
    return options


@functools.cache
def _share_memory() -> None:
    """Give all sessions of this process one pool, which grows by no more than what is asked for.

    Planes of 1120 x 1120 px, one after the other through both encoders, take 0.4 GiB in it. They take 0.7
    with a pool for each session, and 1.2 by malloc as `load_matcher.keep_freed_memory` sets it.
    """
    runtime = _silent_runtime()
    kind = runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    on_cpu = runtime.OrtMemoryInfo("Cpu", kind, 0, runtime.OrtMemType.DEFAULT)
    as_requested = runtime.OrtArenaCfg({"arena_extend_strategy": 1})
    runtime.create_and_register_allocator(on_cpu, as_requested)
