"""Where the sources of this distribution lie, and which sit-interpolants it needs.

In a checkout the sources are two folders up; an sdist carries them beside this file, by the same names, so that a wheel
can be built from it. ``tool.hatch.build.hooks.custom.sources`` says where each goes in the wheel.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface


class SameVersion(MetadataHookInterface):
    """The sit-interpolants of the same version; an sdist has it in its PKG-INFO, and hatchling does not ask again."""

    def update(self, metadata: dict[str, Any]) -> None:
        metadata["dependencies"] = [f"sit-interpolants[training]=={metadata['version']}"]


class Sources(BuildHookInterface):
    """The sources, from either place. An editable installation needs none: that of the checkout's root finds them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        here = Path(self.root)
        root = here if (here / "PKG-INFO").exists() else here.parents[1]
        if version != "editable":
            for source, place in self.config["sources"].items():
                build_data["force_include"][str(root / source)] = place if self.target_name == "wheel" else source
