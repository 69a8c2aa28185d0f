"""A Field as a pipeline of diffusers: the network, a PathScheduler, and a VAE where the states are latents."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from models import SiT
from models.quantization import quiet_import
from training.diffusers_scheduler import Generator, PathScheduler
from training.fields import Field
from training.guidance import Guidance

with quiet_import():
    from diffusers import AutoencoderKL, DiffusionPipeline, ImagePipelineOutput, ModelMixin
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.utils.torch_utils import randn_tensor

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


class SiTTransformer(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A SiT as diffusers saves, loads and moves a network. It is called as the SiT is.

    Args:
        arguments: Those of ``models.SiT``, by name.

    Attributes:
        network: The SiT.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.network = SiT(**arguments)

    @classmethod
    def of(cls, network: SiT) -> SiTTransformer:
        """The same network, not a copy."""
        with torch.device("meta"):  # whose weights are not drawn
            transformer: SiTTransformer = cls(dataclasses.asdict(network.config))
        transformer.network = network
        transformer.train(network.training)
        return transformer

    @property
    def null_class(self) -> int | None:
        """What y is where no condition is meant."""
        return self.network.null_class

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """See ``models.SiT.forward``."""
        prediction: Tensor = self.network(x, t, y)
        return prediction


class SiTPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Samples of a Field, by the conventions of diffusers: ``to``, ``save_pretrained``, ``from_pretrained``.

    Args:
        transformer: The network.
        scheduler: Its path and the method; its ``timestep`` is "t".
        vae: Of latents; None where the network makes images.

    Raises:
        TypeError: If ``scheduler`` is no PathScheduler.
        ValueError: If its ``timestep`` is not t.
    """

    transformer: SiTTransformer
    scheduler: PathScheduler
    vae: AutoencoderKL | None
    model_cpu_offload_seq = "transformer->vae"
    _optional_components: ClassVar[list[str]] = ["vae"]

    def __init__(self, transformer: SiTTransformer, scheduler: PathScheduler, vae: AutoencoderKL | None = None) -> None:
        super().__init__()
        if not isinstance(scheduler, PathScheduler):
            raise TypeError(
                f"SiTPipeline: scheduler must be a PathScheduler, got {type(scheduler).__name__}. "
                "PathScheduler.from_path makes one of any path."
            )
        if scheduler.config.timestep != "t":
            raise ValueError(f"SiTPipeline: scheduler.timestep must be 't', got {scheduler.config.timestep!r}.")
        self.register_modules(transformer=transformer, scheduler=scheduler, vae=vae)

    @classmethod
    def from_field(cls, field: Field, *, vae: AutoencoderKL | None = None, **config: Any) -> SiTPipeline:
        """The pipeline of a Field, with its network, not a copy.

        Args:
            field: Its guidance is an argument of the call.
            vae: See the class.
            config: Of the PathScheduler: method, w, eta, grid.

        Raises:
            TypeError: If the network is no SiT.
        """
        if not isinstance(field.model, SiT):
            raise TypeError(f"SiTPipeline.from_field: the network must be a SiT, got {type(field.model).__name__}.")
        scheduler = PathScheduler.from_path(field.path, prediction_type=field.prediction, **config)
        return cls(SiTTransformer.of(field.model), scheduler, vae)

    def field(self, guidance: float | Guidance = 1.0) -> Field:
        """The Field of the components: what ``sample_ode``, ``sample_sde`` and ``log_likelihood`` take."""
        return Field(
            self.transformer,
            self.scheduler.path,
            self.scheduler.prediction,
            guidance=guidance if isinstance(guidance, Guidance) else Guidance(scale=guidance),
            dtype=self.transformer.dtype,
        )

    def __call__(
        self,
        class_labels: int | Sequence[int] | Tensor | None = None,
        *,
        num_images: int | None = None,
        guidance_scale: float | Guidance = 1.0,
        num_inference_steps: int = 50,
        generator: Generator = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw samples.

        Args:
            class_labels: One a sample, or one alone for a single sample; None for a network without classes.
            num_images: How many samples, in place of class_labels.
            guidance_scale: 1 is unguided; or a Guidance, with its interval and channels.
            num_inference_steps: See PathScheduler.set_timesteps.
            generator: Of the noise at the start and of w: one, or one a sample, which then is the same in any batch.
            latents: Standard normal noise to start from, in place of the generator's.
            output_type: "pil", "np" in [0, 1] of shape (batch, H, W, C), "pt" in [0, 1] of shape (batch, C, H, W), or
                "latent": the samples as they are.
            return_dict: Return an object with ``images``, not a tuple of them.

        Raises:
            ValueError: If an argument is not valid.
        """
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"SiTPipeline: output_type must be one of {', '.join(OUTPUT_TYPES)}, got {output_type!r}.")
        if (class_labels is None) == (num_images is None):
            raise ValueError("SiTPipeline: one of class_labels and num_images must be given, got both or none.")
        device = self._execution_device
        y = None if class_labels is None else torch.as_tensor(class_labels, device=device).reshape(-1)
        batch = num_images if y is None else len(y)
        shape = (batch, *self.transformer.network.input_shape)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device)
        elif latents.shape != shape:
            raise ValueError(f"SiTPipeline: latents must have shape {shape}, got {tuple(latents.shape)}.")
        field = self.field(guidance_scale)
        self.scheduler.set_timesteps(num_inference_steps)  # on the CPU, where a time is looked at without waiting
        assert self.scheduler.times is not None, "set just now"
        scale = float(self.scheduler.path.sigma(float(self.scheduler.times[0])))  # as sample_ode
        with torch.no_grad(), field.evaluation_mode():
            x = latents.to(device) * scale
            for time in self.progress_bar(self.scheduler.timesteps):
                prediction = field.predict(x, time, y)
                x = self.scheduler.step(prediction, time, x, generator, return_dict=False)[0]
            images = x if output_type == "latent" else self._images(x, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _images(self, x: Tensor, output_type: str) -> Any:
        if self.vae is not None:
            config = self.vae.config
            x = x / config.scaling_factor + (config.shift_factor or 0.0)
            x = self.vae.decode(x.to(self.vae.dtype)).sample
        pixels = (x.float() / 2 + 0.5).clamp(0, 1)
        if output_type == "pt":
            return pixels
        array = pixels.cpu().permute(0, 2, 3, 1).numpy()
        return array if output_type == "np" else self.numpy_to_pil(array)
