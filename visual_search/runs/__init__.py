"""A run: its folder, its parts built when asked for, what it measures and what it leaves.

=========================  =========================================================================
The folder
``run.py``                 `Run`: its name, its status, its files, its newest checkpoint
``identity.py``            which run a config asks for: what of it can change the result
``code.py``                the code that a run was built from, without comments and docstrings
``variants.py``            which runs differ in the seed alone, and what tells the others apart
``longer.py``              a longer run goes on from a finished shorter one
``finished.py``            what is over: a finished run, and what was measured in a folder
``moved.py``               whose data is no longer where it was
``jobs.py``                what a job of a sweep leaves: a record that any process of it can read
The parts
``parts.py``               `Parts`: what settings describe, each part built once, when asked for
``catalogs.py``            a config's catalogue and its pictures, read and prepared
``initial_weights.py``     starts a network with what an earlier run has learned
``recipe.py``              what to train on a catalogue, by what it holds
``embeddings.py``          of a finished run: the saved ones, and of the rest what its network says
``embedders.py``           networks of other libraries, by the names that these know them by
``mteb_task.py``           a catalogue under a protocol as a folder that mteb measures on
``embedding_files.py``     of another program, and those that runs have saved
``embedding_shards.py``    a folder of embeddings in shards, written bit by bit
``embedding_stores.py``    where shards lie: files by their names, each whole or not at all
``embedding_data.py``      what is to be embedded, in memory or some rows at a time
``embedding_listing.py``   the items that are to be embedded, on the disk
``embedding_networks.py``  the networks that embed shards
``embedding_ray.py``       the same on many machines, by Ray
``embedding_job.py``       shards to embed, wherever that is done
``index_settings.py``      what a command says of a bundle's index
``vector_database.py``     a bundle or shards, pushed to a vector database and compared with it
The result
``measuring.py``           the pipeline: embeddings in, evaluation, floors, intervals and files out
``results.py``             what a measurement leaves: embeddings, numbers, floors, near-duplicates
``machine.py``             what computed a result: processor, cards, drivers, precision
``places.py``              what is given away names no place and no person
``serving_wheel.py``       this package as a bundle carries it
=========================  =========================================================================
"""
