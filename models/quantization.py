"""Blocks in 8 bits, by torchao: a network to sample from, in a quarter of the memory of float32."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from torch import nn

from models.sit import SiT

CHOICES: Final = {
    "int8_weights": "Int8WeightOnlyConfig",
    "int8": "Int8DynamicActivationInt8WeightConfig",
    "float8_weights": "Float8WeightOnlyConfig",
    "float8": "Float8DynamicActivationFloat8WeightConfig",
}


IMPORT_NOISE: Final = {
    "torchao": "Failed to load ",  # kernels for other machines or Python versions
    "torch.utils._pytree": "register_constant() on Enum subclasses is deprecated",  # which torchao calls
    "diffusers.quantizers.torchao.torchao_quantizer": "Unable to import `torchao` Tensor objects",
}
"""Messages without use to the user when torchao is imported, directly or by diffusers: logger, and what it says."""


@contextmanager
def quiet_import() -> Iterator[None]:
    """Drop the messages of ``IMPORT_NOISE``, and no others, while torchao or diffusers is imported."""
    filters = {logging.getLogger(name): partial(_says_other, message) for name, message in IMPORT_NOISE.items()}
    for logger, keep in filters.items():
        logger.addFilter(keep)
    try:
        yield
    finally:
        for logger, keep in filters.items():
            logger.removeFilter(keep)


def _says_other(message: str, record: logging.LogRecord) -> bool:
    return message not in record.getMessage()


def quantize(model: SiT, how: str = "int8_weights") -> SiT:
    """Round the weights of the blocks' attention and MLP to 8 bits, one scale a row, in place, and return the network.

    What modulates, the embeddings and the last layer stay as they are. The other weights of the blocks become bfloat16,
    and so does what the blocks multiply. The network is then for sampling: it has no gradients, and save_pretrained
    does not take it. Call it before ``compile_blocks``, without which it is slow.

    Args:
        model: Trained.
        how: ``int8_weights`` and ``float8_weights`` store 8 bits and multiply in bfloat16; ``int8`` and ``float8`` also
            round the tokens, one scale each, and multiply in 8 bits, float8 on a GPU that can (H100 and later).

    Raises:
        ImportError: Without torchao, the extra ``quantize``.
        ValueError: If ``how`` is unknown.
    """
    if how not in CHOICES:
        raise ValueError(f"quantize: how must be one of {', '.join(CHOICES)}, got {how!r}.")
    try:
        with quiet_import():
            from torchao import quantization
    except ImportError as error:
        raise ImportError(
            "quantize: torchao must be installed, got none. Run pip install 'sit-interpolants[quantize]'."
        ) from error

    def multiplies_tokens(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and "adaLN_modulation" not in name

    config: Any = getattr(quantization, CHOICES[how])()
    model.blocks.bfloat16()
    quantization.quantize_(model.blocks, config, filter_fn=multiplies_tokens)
    return model
