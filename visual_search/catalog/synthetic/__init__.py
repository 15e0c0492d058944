"""A seeded catalogue of drawn products, whose every attribute is known.

==================  ================================================================================
``generator.py``    which product is drawn how, by seed, category and index
``products.txt``    each product stroke by stroke
``drawing.py``      the pen that draws them: shapes, fabric with a pattern, metal, glass
==================  ================================================================================
"""

from visual_search import builder
from visual_search.catalog.synthetic.generator import (
    CATEGORIES,
    GENERATOR_VERSION,
    SyntheticSource,
    synthetic,
)

synthetic = builder("data")(synthetic)

__all__ = ["CATEGORIES", "GENERATOR_VERSION", "SyntheticSource", "synthetic"]
