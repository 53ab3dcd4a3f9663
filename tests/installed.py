"""A plugin as `pip install --target` would leave it: what a folder on the search path needs so that `amb` finds it."""

from __future__ import annotations

from pathlib import Path


def install_plugin(folder: Path, name: str, modules: dict[str, str], version: str = "1.0") -> None:
    """Write the metadata of a distribution whose plugins are these entry points, each with its module."""
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = [f"{point} = {module}" for point, module in modules.items()]
    (about / "entry_points.txt").write_text("\n".join(["[amb]", *points, ""]))
