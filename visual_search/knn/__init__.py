"""Neighbours: which rows of a gallery lie nearest, exactly or nearly so; never torch.

=======================  ==========================================================================
To measure
``gallery_index.py``     `EmbeddingIndex`: build, search, save, load -> `NearestItems`
``embeddings.py``        what embeddings and their ids must be
``exact.py``             exact distances, and how far those in float32 may be off
``exact_gallery.py``     exact neighbours, ties by id, out of FAISS's rounded candidates
``device.py``            when a GPU may answer in the CPU's place
``manifest.py``          what a saved index says about itself, and what makes it refuse to load
To search among many, as bundles do
``search_index.py``      `SearchIndex`: exact or nearly so, restricted or not, growing
``store.py``             where exact embeddings come from: `ArrayStore`
``plan.py``              what was decided about an index: `SearchPlan`
``choice.py``            which kind suits so many items in so much memory
``exact_store.py``       exact neighbours in a store that is read in blocks, ties by row
``indexes.py``           by kind: built anew, or opened from what was saved
``flat_index.py``        the exact one, behind the interface
``faiss_index.py``       HNSW, IVF and IVF-PQ, ranked by exact embeddings
``faiss_parts.py``       what such an index is made of, its training, the steps of its tuning
``faiss_files.py``       what makes a saved one refuse to load
``tuning.py``            how far to look for a target recall
``engine.py``            FAISS loaded late, and its threads
To shrink
``codecs.py``            fewer bytes an item, trained on the gallery
``principal_axes.py``    the directions in which a gallery varies, shared out to parts
=======================  ==========================================================================

Importing a module of this room loads neither torch nor FAISS; FAISS comes with the first index.
"""
