"""The settings that a command takes, and the builders that they may name.

===============  ===============================================================================
``schemas.py``   the closed schemas of the commands; `SCHEMAS`
``builders.py``  the only builders that a config may name; `build`
``plugins.py``   where builders come from: this package and plug-ins, by the same mark
``hints.py``     what is meant by a name that there is not
===============  ===============================================================================
"""
