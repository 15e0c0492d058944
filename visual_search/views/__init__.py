"""Views: pictures from arrays.

==================  ==========================================================================
``figures``         charts (per-category bars, class distributions); saving, arrays for loggers
``picture_grids``   reconstructions beside originals; search results as rows of pictures
``feature_maps``    what every encoder layer makes of one item
``projection``      embeddings to three dimensions (UMAP or PCA) and the static figure of them
``projector``       the same points for TensorBoard's projector: sprites, metadata, config
``style``           one quiet style for all: colours, fonts, metric names
``sheet``           a page measured in inches on which pictures and texts are placed
==================  ==========================================================================

Functions take NumPy arrays and give `matplotlib.figure.Figure` objects; pyplot and its global state
are never touched. Pictures come in as ``[.., 3, S, S] uint8``. Names of categories and items
are shown literally, also where they hold ``$``.
"""
