"""The settings that a command takes, and the builders that they may name.

=====================  =============================================================================
``schemas.py``         the closed schemas of the commands; `SCHEMAS`
``search_schemas.py``  those of the commands from a run to a search
``builders.py``        the only builders that a config may name; `build`
=====================  =============================================================================
"""
