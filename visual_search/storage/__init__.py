"""Object storage, as S3: data that is read from there, and files that are written there.

================  ================================================================================
``uris.py``       which text names something on object storage, and its parts
``bucket.py``     requests to one bucket, repeated where it does not answer
``copies.py``     whole files, copied to this machine once
``hashes.py``     of objects that were read, so that none is read for it again
``seekable.py``   a large object as an open file, read by blocks
================  ================================================================================

Requests go through `pyarrow.fs`, with the credentials, profile and endpoint of the environment.
"""
