"""Several processes: who am I, sharing work out, and bringing results together.

torch is imported where processes are joined or asked: a command that only reads run folders needs
a :class:`World` of one, and should not wait seconds for it.
"""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class World:
    """This process's rank among ``size`` processes."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks for all."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, by rank, to every process."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()


def is_sharded() -> bool:
    """Return whether a launcher asks for FSDP, which divides the weights among processes."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true")


def join_world(*, cpu: bool) -> World:
    """Join the processes that a launcher started (``torchrun``, ``accelerate launch``)."""
    from accelerate import PartialState

    state = PartialState(cpu=cpu)
    if state.num_processes > 1:
        # Left open at exit, the threads of gloo can abort a process whose work is done.
        atexit.unregister(_leave_world)
        atexit.register(_leave_world)
    return World(rank=state.process_index, size=state.num_processes)


def _leave_world() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def current_world() -> World:
    """Return this process's place without starting anything."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return World(rank=dist.get_rank(), size=dist.get_world_size())
    return World()
