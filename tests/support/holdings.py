"""What each process holds after a step of training: holdings.py FOLDER SETTINGS writes FOLDER/RANK, JSON, in bytes.

Parameters, gradients, moments, averages; and while the second block computes, twice what it has, and what is in none.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from training.config import read_config
from training.processes import leave
from training.sharding import local
from training.trainer import Trainer


def size(tensors: Iterable[Tensor]) -> int:
    return sum(local(tensor).numel() * tensor.element_size() for tensor in tensors)


def allocated(tensors: Iterable[Tensor]) -> int:
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


trainer, together = Trainer(read_config(sys.argv[2:])), []


def look(block: nn.Module, _: object) -> None:
    outside = [p for name, p in trainer.model.named_parameters() if not name.startswith("blocks.")]
    together.append(2 * allocated(block.parameters()) + allocated(outside))


trainer.model.blocks[1].register_forward_pre_hook(look)
trainer.train_step()
parameters = list(trainer.model.parameters())
sizes = [
    size(parameters),
    size(p.grad for p in parameters if p.grad is not None),
    size(state[name] for state in trainer.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")),
    size(p for average in trainer.averages.values() for p in average.module.parameters()),
    *together,
]
Path(sys.argv[1], str(trainer.processes.rank)).write_text(json.dumps(sizes))
leave()
