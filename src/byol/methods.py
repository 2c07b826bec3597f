"""The methods of pretraining, and which settings are meant for which."""

from typing import Any, Literal

from byol.errors import UserError

Method = Literal["byol", "simsiam", "pixpro", "pixcontrast"]
PIXEL_METHODS: tuple[Method, ...] = ("pixpro", "pixcontrast")
"""Those that compare places of feature maps: they need to know where a view comes from."""
_MEANT_FOR: dict[str, tuple[Method, ...]] = {
    "instance_weight": PIXEL_METHODS,
    "positive_distance": PIXEL_METHODS,
    "feature_layer": PIXEL_METHODS,
    "propagation_layers": ("pixpro",),
    "propagation_gamma": ("pixpro",),
    "pixel_temperature": ("pixcontrast",),
    "gather_projections": ("byol", "simsiam"),
    "target_statistics": ("byol",),
}
"""Settings that mean nothing beside other methods."""


def refuse_foreign_settings(config: Any) -> None:
    """Raise UserError where a setting of `config.PretrainConfig` is given beside a method that lacks it."""
    for name, methods in _MEANT_FOR.items():
        is_given = getattr(config, name) != getattr(type(config), name)
        if is_given and config.method not in methods:
            raise UserError(
                f"{name} means nothing with method {config.method}: it is for {' and '.join(methods)}"
            )
