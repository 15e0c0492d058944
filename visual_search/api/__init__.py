"""What can be done from Python; ``import visual_search as vs`` offers all of it (docs/python.md).

=================  =================================================================================
``commands.py``    `train`, `open_catalog`
``trained.py``     `open_run`: a finished run, its numbers, and what its network makes of pictures
``measured.py``    `evaluate`: embeddings, or any callable that makes them, by the same protocols
``bundles.py``     `open_bundle`: a search in a folder
``settings.py``    settings as on the command line
``given.py``       pictures as they are given: files, bytes, Pillow images, arrays
=================  =================================================================================
"""
