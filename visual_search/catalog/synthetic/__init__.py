"""A seeded catalogue of drawn products, whose every attribute is known.

==================  ================================================================================
``generator.py``    which product is drawn how, by seed, category and index
``garments.py``     what is worn on the body
``accessories.py``  shoes, bags, jewelry and the like
``drawing.py``      the pen: shapes, fabric with a pattern, metal, glass
==================  ================================================================================
"""

from visual_search.catalog.synthetic.generator import (
    CATEGORIES,
    GENERATOR_VERSION,
    SyntheticSource,
    synthetic,
)

__all__ = ["CATEGORIES", "GENERATOR_VERSION", "SyntheticSource", "synthetic"]
