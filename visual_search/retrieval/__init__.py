"""Who is similar to whom, and how good is that: numpy, pandas and FAISS, never torch.

===============  ==================================================================================
``index.py``     `EmbeddingIndex`: build, search, save, load -> `SearchResult`
``nearest.py``   exact neighbours, ties by id, out of FAISS's rounded candidates
``device.py``    when a GPU may answer in the CPU's place
``manifest.py``  what a saved index says about itself, and what makes it refuse to load
``protocol.py``  who is query, who is gallery, what counts as relevant, what leaks
``metrics.py``   the numbers, each with its formula, denominator and empty case
``report.py``    search result + categories -> `RetrievalReport` (per query, per category, overall)
===============  ==================================================================================

Importing a module of this room loads neither torch nor FAISS; FAISS comes with the first index.
"""
