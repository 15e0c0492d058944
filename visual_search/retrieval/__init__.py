"""Who is similar to whom, and how good is that: numpy and pandas, never torch.

======================  ===========================================================================
To measure
``protocol.py``         who is query, who is gallery, what counts as relevant: `Protocol`
``protocols.py``        the protocols by name: ``gallery_query``, ``leave_one_out``, ...
``leaks.py``            what stands on both sides: items, pixels, groups
``near_duplicates.py``  what only looks the same, on both sides
``measure.py``          embeddings + protocol -> neighbours -> report; what may be compared with it
``products.py``         the same with one answer a product, where these have several pictures
``equality.py``         which rows are equal in some columns, and how many
``qrels.py``            who is relevant to whom, pair by pair, for other programs
``metrics.py``          the numbers, each with its formula, denominator and empty case
``graded.py``           nDCG, where some answers are better than others
``report.py``           `RetrievalReport` (per query, per category, overall), with intervals
``report_files.py``     the same on disk
``size_quality.py``     what fewer bytes an item cost, paired with no compression
To judge
``expectation.py``      how sure a mean will be, told before any work
``statistics.py``       how sure a mean or a difference is
``resampling.py``       what that draws and flips
``floor_comparison.py``  a run against embeddings that learn nothing
``comparability.py``    which runs may be compared
``comparison.py``       runs side by side
``seeds.py``            runs that differ in the seed alone, as one
``ranking.py``          all runs, ranked
``extremes.py``         the queries that went worst and best
======================  ===========================================================================

Importing a module of this room loads neither torch nor FAISS; it comes with the first search.
"""
