"""Views: pictures from arrays.

========================  ==========================================================================
``figures.py``            charts by category, class distributions; arrays for loggers
``evaluation_charts.py``  the run among its floors, runs compared, rule by rule
``compression_chart.py``  retrieval quality against bytes an item
``confusion.py``          which categories are retrieved where another was asked for
``training_curves.py``    losses and metrics over the epochs
``picture_grids.py``      reconstructions beside originals; results as rows of pictures
``search_grid.py``        a search's answers as one picture
``duplicates.py``         pairs of pictures that are nearly the same
``feature_maps.py``       what every encoder layer makes of one item
``projection.py``         embeddings to three dimensions (UMAP or PCA), and a figure of them
``projector.py``          the same points for TensorBoard's projector
``drawing.py``            figures that were drawn before: for pages and TensorBoard
``progress.py``           what shows that a long step is alive: a bar, or a line now and then
``terminal_pictures.py``  pictures in terminals that can show them
``chart_rows.py``         what charts with a row a name share
``style.py``              one quiet style for all: colours, fonts, metric names
``scripts.py``            names in scripts that no installed font has
``sheet.py``              a page measured in inches on which pictures and texts are placed
``html.py``               the pages: a run, a comparison, the leaderboard; one file each
``html_run.py``           the report of a run
``html_comparison.py``    the comparison of runs
``html_leaderboard.py``   every run beside those that answered the same question
``html_check.py``         the check of a catalogue
``table.py``              a table described once, for the terminal, pages and Markdown
``html_page.py``          what all pages share: templates, written values, the size limit
``html_tables.py``        their tables, each a `Table` that one macro writes
``html_figures.py``       figures and pictures as parts of a page
``html_projection.py``    points that can be turned
========================  ==========================================================================

Functions take NumPy arrays and give `matplotlib.figure.Figure` objects; pyplot and its global state
are never touched. Pictures come in as ``[.., 3, S, S] uint8``. Names of categories and items
are shown literally, also where they hold ``$``.
"""
