"""An average of the weights of any width, from the snapshots of a run that had --training.ema_widths:
python examples/combine_ema.py --run runs/mine --width 0.08 --output runs/mine/width-0.08.

The folder is one that Field.from_pretrained reads.
"""

from dataclasses import dataclass
from typing import cast

from models import SiT
from training.checkpoint import find
from training.config import run_script
from training.ema import combine


@dataclass(frozen=True)
class Combination:
    """Which average to make.

    Args:
        run: Folder of the run.
        width: Standard deviation of the steps that are averaged, relative to their number.
        output: Folder that the network is written to.
        step: Step of the snapshot at which the average ends; null is the last one.
    """

    run: str
    width: float
    output: str
    step: int | None = None


def main(config: Combination) -> None:
    """Write the network with the averaged weights, and say how well the snapshots make up the average."""
    weights, distance = combine(config.run, config.width, config.step)
    field = find(config.run).field()
    cast(SiT, field.model).load_state_dict(weights)
    field.save_pretrained(config.output)
    print(f"{config.output}: the average of width {config.width:g}; its profile is {100 * distance:.1f} % off")


if __name__ == "__main__":
    run_script(main, Combination)
