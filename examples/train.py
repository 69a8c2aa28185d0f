"""Train a SiT, or resume a run: the same command goes on where it was stopped.

Commands::

    python examples/train.py --config examples/configs/digits.yaml
    python examples/train.py --config examples/configs/digits.yaml --run runs/own --path.alpha "t**2" --path.sigma "1-t"
    torchrun --nproc_per_node 8 -- examples/train.py --config examples/configs/imagenet256-XL.yaml
"""

from pathlib import Path

from interpolants import diffusion
from training.config import Config, run_script
from training.figures import loss_figure, path_figure
from training.files import write_png
from training.processes import leave
from training.record import read_log
from training.trainer import Trainer


def main(config: Config) -> None:
    """Train, then draw the path and the loss into the folder of the run."""
    trainer = Trainer(config)
    complete = trainer.fit()
    leave()
    if not (complete and trainer.processes.is_first):
        return
    run = Path(config.run)
    ws = {name.replace("_", " "): choice() for name, choice in diffusion.CHOICES.items()}
    write_png(run / "path.png", path_figure(trainer.loss.path, ws).savefig, dpi=150)
    write_png(run / "loss.png", loss_figure(read_log(trainer.metrics_file)).savefig, dpi=150)
    print(f"trained {trainer.step} steps in {trainer.seconds:.0f} s; see {run}/loss.png and {run}/path.png")


if __name__ == "__main__":
    run_script(main)
