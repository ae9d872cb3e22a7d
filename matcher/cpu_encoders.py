"""The encoders on a CPU, by ONNX Runtime: equal to torch's up to rounding, in half its time or less."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from crosstie.matcher.encoder_graph import GRAPH_INPUT, GRAPH_OUTPUTS, encoder_graph
from crosstie.types import Kind


@dataclass(frozen=True, slots=True, eq=False)
class CpuEncoders:
    """One session for each kind of image. Safe in many threads, but neither pickled nor forked."""

    sessions: Mapping[Kind, onnxruntime.InferenceSession]

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[np.float32]], *, threads: int) -> Self:
        """Build the encoders.

        Parameters
        ----------
        tensors : Mapping[str, NDArray[np.float32]]
            Weights by the names of `network.MatchingNetwork.state_dict`, normalisations not folded.
        threads : int
            Threads that a call may use, the calling one included.
        """
        options = _options(threads)
        sessions = {}
        for kind in Kind:
            prefix = f"encoders.{kind.value}."
            of_kind = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            sessions[kind] = onnxruntime.InferenceSession(
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


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
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
    on_cpu = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    as_requested = onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1})
    onnxruntime.create_and_register_allocator(on_cpu, as_requested)
