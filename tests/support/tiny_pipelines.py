"""Pipelines of diffusers with random weights, small enough to make an image in a fraction of a second.

Text is left out: a prompt is its embedding, random too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor

SIZE = 32
TOKENS, WIDTH = 3, 8


@dataclass(frozen=True)
class Case:
    """A pipeline, as ``make(scheduler)``, and what it is called with for a batch, without the steps."""

    make: Callable[[Any], Any]
    arguments: Callable[[int], dict[str, Any]]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def vae(channels: int = 4) -> Any:
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        block_out_channels=(8,) * 3,  # 32 x 32 pixels are 8 x 8 latents
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        latent_channels=channels,
        shift_factor=0.1,
        scaling_factor=0.7,
    ).eval()


def unet(**changes: Any) -> Any:
    torch.manual_seed(1)
    blocks = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    return diffusers.UNet2DConditionModel(
        **{**blocks, "sample_size": 8, "cross_attention_dim": WIDTH, "attention_head_dim": 4},
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **changes,
    ).eval()


def pixel_unet() -> Any:
    torch.manual_seed(1)
    return diffusers.UNet2DModel(
        sample_size=8,
        layers_per_block=1,
        norm_num_groups=4,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    ).eval()


def dit() -> Any:
    torch.manual_seed(2)
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,  # with the variances of DDPM, which a pipeline cuts off
        num_layers=1,
        sample_size=8,
        norm_num_groups=2,
        num_embeds_ada_norm=1000,
    ).eval()


def sd3_transformer() -> Any:
    torch.manual_seed(3)
    return diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=16,  # which the inpainting pipeline asks for
        out_channels=16,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
    ).eval()


def lumina_transformer() -> Any:
    torch.manual_seed(5)
    return diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=16,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=2,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(300, 512, 512),
        cap_feat_dim=WIDTH,
    ).eval()


def flux_transformer() -> Any:
    torch.manual_seed(4)
    return diffusers.FluxTransformer2DModel(
        in_channels=16,  # four latent pixels a token
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    ).eval()


def _sd(name: str) -> Callable[[Any], Any]:
    missing = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    return lambda scheduler: getattr(diffusers, name)(
        vae=vae(), unet=unet(), scheduler=scheduler, requires_safety_checker=False, **missing
    )


def _sdxl(scheduler: Any) -> Any:
    parts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    # Beside the text, its pooled embedding and six numbers: the size of the image and of a crop.
    size = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    network = unet(**size, projection_class_embeddings_input_dim=6 * 8 + WIDTH)
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(), unet=network, scheduler=scheduler, add_watermarker=False, **dict.fromkeys(parts)
    )


def _lumina(scheduler: Any) -> Any:
    missing = {"text_encoder": None, "tokenizer": None}
    return diffusers.Lumina2Pipeline(vae=vae(), transformer=lumina_transformer(), scheduler=scheduler, **missing)


def _masks(batch: int) -> dict[str, Any]:
    mask = torch.ones(batch, TOKENS, dtype=torch.bool)
    return {"prompt_attention_mask": mask, "negative_prompt_attention_mask": mask}


def _sd3(name: str) -> Callable[[Any], Any]:
    parts = ("text_encoder", "tokenizer")
    missing = dict.fromkeys(f"{part}{number}" for part in parts for number in ("", "_2", "_3"))
    return lambda scheduler: getattr(diffusers, name)(
        vae=vae(16), transformer=sd3_transformer(), scheduler=scheduler, **missing
    )


def _flux(name: str) -> Callable[[Any], Any]:
    missing = dict.fromkeys(f"{part}{number}" for part in ("text_encoder", "tokenizer") for number in ("", "_2"))
    return lambda scheduler: getattr(diffusers, name)(
        vae=vae(), transformer=flux_transformer(), scheduler=scheduler, **missing
    )


def _size(batch: int) -> dict[str, Any]:
    return {"height": SIZE, "width": SIZE}


def _image(batch: int) -> dict[str, Any]:
    return {"image": draw(batch, 3, SIZE, SIZE, seed=7).clamp(-1, 1) / 2 + 0.5, "strength": 0.6}


def _inpaint(batch: int) -> dict[str, Any]:
    mask = torch.zeros(batch, 1, SIZE, SIZE)
    mask[:, :, :, SIZE // 2 :] = 1
    return {**_size(batch), **_image(batch), "mask_image": mask}


def _prompt(pooled: bool, negative: bool) -> Callable[[int], dict[str, Any]]:
    def embeddings(batch: int) -> dict[str, Any]:
        found = {"prompt_embeds": draw(batch, TOKENS, WIDTH, seed=8)}
        if pooled:
            found["pooled_prompt_embeds"] = draw(batch, WIDTH, seed=9)
        if negative:
            found |= {f"negative_{name}": value.flip(-1) for name, value in found.items()}
        return found

    return embeddings


def _both(*parts: Callable[[int], dict[str, Any]]) -> Callable[[int], dict[str, Any]]:
    return lambda batch: {name: value for part in parts for name, value in part(batch).items()}


_SD, _SD3, _FLUX = (_prompt(*flags) for flags in ((False, True), (True, True), (True, False)))

FLOW = {
    "StableDiffusion3Pipeline": Case(_sd3("StableDiffusion3Pipeline"), _both(_SD3, _size)),
    "StableDiffusion3Img2ImgPipeline": Case(_sd3("StableDiffusion3Img2ImgPipeline"), _both(_SD3, _size, _image)),
    "StableDiffusion3InpaintPipeline": Case(_sd3("StableDiffusion3InpaintPipeline"), _both(_SD3, _inpaint)),
    "FluxPipeline": Case(_flux("FluxPipeline"), _both(_FLUX, _size)),
    "FluxImg2ImgPipeline": Case(_flux("FluxImg2ImgPipeline"), _both(_FLUX, _size, _image)),
    "FluxInpaintPipeline": Case(_flux("FluxInpaintPipeline"), _both(_FLUX, _inpaint)),
    "Lumina2Pipeline": Case(_lumina, _both(_SD, _size, _masks)),
}
"""For networks of flow matching."""

DDPM = {
    "StableDiffusionPipeline": Case(_sd("StableDiffusionPipeline"), _both(_SD, _size)),
    "StableDiffusionImg2ImgPipeline": Case(_sd("StableDiffusionImg2ImgPipeline"), _both(_SD, _image)),
    "StableDiffusionInpaintPipeline": Case(_sd("StableDiffusionInpaintPipeline"), _both(_SD, _inpaint)),
    # Stopped early: of the steps those above 40 % of num_train_timesteps.
    "StableDiffusionXLPipeline": Case(_sdxl, _both(_SD3, _size, lambda batch: {"denoising_end": 0.6})),
    "DiTPipeline": Case(
        lambda scheduler: diffusers.DiTPipeline(transformer=dit(), vae=vae(), scheduler=scheduler),
        lambda batch: {"class_labels": list(range(3, 3 + batch)), "guidance_scale": 2.0},
    ),
    "DDPMPipeline": Case(
        lambda scheduler: diffusers.DDPMPipeline(unet=pixel_unet(), scheduler=scheduler),
        lambda batch: {"batch_size": batch},
    ),
}
"""For networks of DDPM's kind, which predict the noise at steps 0, ..., 999."""


def images(pipeline: Any, case: Case, batch: int, **steps: Any) -> Tensor:
    """Images of the pipeline, shape (batch, 3, H, W), or its arrays as they are, each sample with its own generator."""
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(20 + i) for i in range(batch)]
    found = pipeline(**case.arguments(batch), **steps, generator=generators, output_type="np").images
    return torch.as_tensor(found)
