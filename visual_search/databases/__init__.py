"""Vector databases: one interface, and what keeps a collection the same as its source.

======================  ===========================================================================
``database.py``         `VectorDatabase`: what each offers; `CollectionFacts`; what can go wrong
``opening.py``          kind and address -> a collection
``urls.py``             addresses, and what of them nobody is to see
``labels.py``           an item's texts as labels to filter by; the key of its content
``retries.py``          asking again while a database is away
A file a database
``pgvector.py``         PostgreSQL with pgvector
``qdrant.py``           Qdrant
``milvus.py``           Milvus
``lancedb.py``          LanceDB: a folder, no server
What is done with them
``pushing.py``          brings a collection to what a source holds
``verifying.py``        compares a collection with its source
``bundle_source.py``    a bundle as the source
``served_index.py``     a bundle that is searched through a collection
======================  ===========================================================================

A collection holds items: id, content key, labels, embedding; and `CollectionFacts`, by which
another model's embeddings are refused. Its server only ever proposes ids: whoever serves a bundle
has the exact embeddings beside it and ranks by them.

Each client is an extra, imported by the first collection that is opened with it.
"""
