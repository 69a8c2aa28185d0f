"""Settings of all tests: one thread (several test processes share the cores), derandomized properties."""

import os
import tempfile

import torch
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_CACHE", tempfile.mkdtemp(prefix="datasets-"))
torch.set_num_threads(1)
settings.register_profile("derandomized", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("derandomized")
