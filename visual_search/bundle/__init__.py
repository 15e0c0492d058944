"""A search in a folder: everything that answers "what looks like this", and nothing that trains.

======================  ===========================================================================
To read
``bundle.py``           `Bundle`: open, search, filter, thumbnails -> `Hit`
``remote.py``           a bundle on object storage, copied to this machine once
``snapshot.py``         what one generation's files hold, opened and checked
``indexing.py``         the encoder and the index, refused where they are not what is said
``filters.py``          columns and accepted values -> which rows may be answered
``products.py``         `Products`: which rows are whose pictures; the nearest products of a query
``encoder.py``          `OnnxEncoder`: a picture -> an embedding, without torch
To write
``items.py``            `BundleItems`: what items must be before they enter a bundle
``creating.py``         `create_bundle`: a new folder, whole or not at all
``writing.py``          `add_items`, `remove_items`, `rebuild_bundle`
``generation.py``       the next generation in the making: new files first, then ``bundle.json``
``model_card.py``       what a bundle tells its readers, and what it needs to be searched
``tidying.py``          when small segments are merged and removed rows dropped, and how
``locking.py``          one writer at a time
The folder
``manifest.py``         ``bundle.json``: the only truth about what belongs to the bundle
``onnx_file.py``        what an ONNX file says about itself, before a runtime sees it
``segments.py``         a segment's files: item table, embeddings, thumbnails
``arrow.py``            texts and arrays for Arrow, without pandas
``files.py``            names that stay inside the folder, hashes, what has to be on the disk
======================  ===========================================================================

A bundle is a folder. ``bundle.json`` names every file with its SHA-256 and size, is written last
and by a rename, and a file that it names is never changed: whoever reads it sees one generation,
the old or the new. Further items come in further segments. A removed row keeps its number and its
place, and stands on a list of removed rows; rows are numbered through the segments in their order.

A row is one picture. Where the manifest names a `product_column`, products may have several: the
first has its product's id, the next ``<id>~2``, and a search answers each product once.

Nothing in a bundle can run code: JSON, Parquet, plain NumPy arrays, FAISS and ONNX, each opened
with what it may hold checked. Loading this room needs neither torch nor pandas; ONNX Runtime comes
with the first picture, FAISS with the first search.
"""
