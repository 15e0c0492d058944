"""A seeded catalogue of drawn products, whose every attribute is known."""

from visual_search.catalog.synthetic.generator import (
    CATEGORIES,
    GENERATOR_VERSION,
    SyntheticSource,
    synthetic,
)

__all__ = ["CATEGORIES", "GENERATOR_VERSION", "SyntheticSource", "synthetic"]
