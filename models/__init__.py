"""Networks. This package knows nothing of paths, losses or training."""

from models.checkpoints import load_official, save_official
from models.presets import PRESETS, PUBLISHED, create_model
from models.quantization import quantize
from models.sit import SiT, SiTConfig

__all__ = ["PRESETS", "PUBLISHED", "SiT", "SiTConfig", "create_model", "load_official", "quantize", "save_official"]
