"""What other packages add: readers of layers, nodes with templates and kernels, passes, settings.

A plugin registers by being imported, with the same calls that kconvert's own parts use:

* :func:`~kconvert.converters.registry.reads` and ``reads_activation`` for layers and activations of Keras models,
  which make nodes: subclasses of :class:`~kconvert.layers.Node`;
* :func:`add_templates` for the folder with the templates and kernels those nodes name;
* :func:`~kconvert.optimizers.add_pass` for a pass of the pipeline;
* :func:`~kconvert.config.add_setting` for a key of the settings dictionary.

The entry point group ``kconvert.plugins`` names modules to import before the first conversion; a program may as well
import a plugin itself.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from importlib import metadata, resources
from importlib.resources.abc import Traversable

from kconvert.errors import ConfigError, ConfigWarning

ENTRY_POINTS = "kconvert.plugins"

_template_packages: list[str] = ["kconvert"]


@functools.cache
def load_plugins() -> None:
    """Import every installed plugin, once; one that cannot be imported is named in a warning and left out."""
    for point in metadata.entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:  # noqa: BLE001  whatever the plugin raises
            warnings.warn(
                f"the plugin {point.name!r} ({point.value}) cannot be loaded and is left out: {error!r}",
                ConfigWarning,
                stacklevel=2,
            )


def add_templates(package: str) -> None:
    """Let nodes name templates and kernels of a package.

    Args:
        package: Dotted name of a package with ``templates/layers/*.j2``, ``templates/kernels/*.h`` or both.

    Raises:
        ConfigError: there is no such package or folder, or a file in it has the name of one of kconvert's or of
            another plugin's.
    """
    if package in _template_packages:
        return
    if importlib.util.find_spec(package) is None or not template_folder(package).is_dir():
        raise ConfigError(f"the package {package!r} has no folder 'templates'")
    for part in ("layers", "kernels"):
        own = _names(package, part)
        for other in _template_packages:
            twice = sorted(own & _names(other, part))
            if twice:
                raise ConfigError(f"templates/{part}/{twice[0]} of {package!r} has the name of a file of {other!r}")
    _template_packages.append(package)


def template_packages() -> tuple[str, ...]:
    """Return the packages whose templates are known, kconvert's own first."""
    return tuple(_template_packages)


def template_folder(package: str) -> Traversable:
    """Return the folder of a package's templates."""
    return resources.files(package) / "templates"


def _names(package: str, part: str) -> set[str]:
    folder = template_folder(package) / part
    return {file.name for file in folder.iterdir()} if folder.is_dir() else set()
