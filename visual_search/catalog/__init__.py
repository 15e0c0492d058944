"""Products and their pictures: readers, splits, decoding, the cache.

=====================  =============================================================================
Products
``catalog.py``         one validated table of products, and where their pictures come from
``identity.py``        what an item may be called: one rule for everything
``splits.py``          which item trains, validates, tests: by group, and stable
``kept_splits.py``     the same in a file, so that later items move no group
Pictures
``images.py``          encoded pictures -> RGB uint8 arrays, safely; and back for display
``pixel_budget.py``    what all decodes of a process may take together
``picture_costs.py``   what a file takes to decode, found before it is decoded
``cache.py``           every picture decoded once: a memory-mapped store on the disk
``streaming.py``       pictures decoded when they are needed, ahead of their reader, and not kept
``thumbnails.py``      small JPEGs, for pages and tables
``duplicates.py``      which pictures are the same: exact pixels, and a hash
To check
``checks.py``          what is wrong before anybody trains: table, categories, groups
``picture_checks.py``  the same of pictures: sizes, modes, copies
``picture_facts.py``   size, mode, format, bytes of each
Rooms within
``downloads/``         pictures from the network
``readers/``           one a format: the schema of a data source is its arguments
``synthetic/``         drawn products, whose every attribute is known
=====================  =============================================================================
"""
