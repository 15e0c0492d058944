"""Visual search in fashion: train encoders, index them, measure them honestly, look at them.

A run flows one way, and the folders are named after the stations that it passes::

    catalog  ->  models  ->  training  ->  retrieval  ->  views
    products     networks    Lightning     index, metrics  figures, projection

What a run found goes to work in two more rooms: ``bundle``, a search in a folder, and ``serving``,
the page and the API over it; neither needs torch.

Shapes in docstrings: ``B`` batch, ``C, H, W`` picture, ``S`` side of a square picture, ``D``
embedding width, ``N`` gallery items, ``Q`` queries, ``K`` neighbours.

Importing this package loads nothing heavy.
"""

__version__ = "0.1.0"
