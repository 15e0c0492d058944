"""Views: pictures from arrays.

======================  ======================================================================
``figures``             charts by category, class distributions; saving, arrays for loggers
``evaluation_charts``   the run among its floors, runs compared, embeddings by relevance rule
``compression_chart``   retrieval quality against bytes an item
``confusion``           which categories are retrieved where another was asked for
``training_curves``     losses and metrics over the epochs
``picture_grids``       reconstructions beside originals; search results as rows of pictures
``duplicates``          pairs of pictures that are nearly the same
``feature_maps``        what every encoder layer makes of one item
``projection``          embeddings to three dimensions (UMAP or PCA) and the static figure of them
``projector``           the same points for TensorBoard's projector: sprites, metadata, config
``html``                a run's report, a comparison, the leaderboard: one HTML file each
``drawing``             figures read back from their files
``chart_rows``          what charts with a row a name share
``style``               one quiet style for all: colours, fonts, metric names
``sheet``               a page measured in inches on which pictures and texts are placed
======================  ======================================================================

Functions take NumPy arrays and give `matplotlib.figure.Figure` objects; pyplot and its global state
are never touched. Pictures come in as ``[.., 3, S, S] uint8``. Names of categories and items
are shown literally, also where they hold ``$``.
"""
