"""Who is similar to whom, and how good is that: numpy, pandas and FAISS, never torch.

======================  ===========================================================================
To search
``index.py``            `EmbeddingIndex`: build, search, save, load -> `SearchResult`
``embeddings.py``       what embeddings and their ids must be
``nearest.py``          exact neighbours, ties by id, out of FAISS's rounded candidates
``device.py``           when a GPU may answer in the CPU's place
``manifest.py``         what a saved index says about itself, and what makes it refuse to load
To search among many, as bundles do
``search_index.py``     `SearchIndex`: exact or nearly so, restricted or not, growing
``search_store.py``     where exact embeddings come from: `ArrayStore`
``search_plan.py``      what was decided about an index: `SearchPlan`
``search_choice.py``    which kind suits so many items in so much memory
``search_exact.py``     exact neighbours in a store that is read in blocks
``search_faiss.py``     HNSW, IVF and IVF-PQ, ranked by exact embeddings
``search_faiss_parts.py`` what such an index is made of, its training, the steps of its tuning
``search_faiss_files.py`` what makes a saved one refuse to load
``search_tuning.py``    how far to look for a target recall
``search_engine.py``    FAISS loaded late, and its threads
``search_lancedb.py``   LanceDB behind the same methods
``search_lancedb_table.py`` its tables on disk
To measure
``protocol.py``         who is query, who is gallery, what counts as relevant: `Protocol`
``protocols.py``        the protocols by name: ``gallery_query``, ``leave_one_out``, ...
``leaks.py``            what stands on both sides: items, pixels, groups
``near_duplicates.py``  what only looks the same, on both sides
``measure.py``          embeddings + protocol -> neighbours -> report; what may be compared with it
``equality.py``         which rows are equal in some columns, and how many
``metrics.py``          the numbers, each with its formula, denominator and empty case
``graded.py``           nDCG, where some answers are better than others
``report.py``           `RetrievalReport` (per query, per category, overall), with intervals
``report_files.py``     the same on disk
To shrink
``compression.py``      codecs: fewer bytes an item, trained on the gallery
``principal_axes.py``   the directions in which a gallery varies, shared out to parts
``size_quality.py``     what each codec costs in retrieval, paired with no compression
To judge
``statistics.py``       how sure a mean or a difference is
``resampling.py``       what that draws and flips
``standing.py``         a run against embeddings that learn nothing
``comparability.py``    which runs may be compared
``comparison.py``       runs side by side
``ranking.py``          all runs, ranked
``leaderboard.py``      that as Markdown and CSV
``extremes.py``         the queries that went worst and best
======================  ===========================================================================

Importing a module of this room loads neither torch nor FAISS; FAISS comes with the first index.
"""
