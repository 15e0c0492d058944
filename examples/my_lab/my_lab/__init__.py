"""A plug-in of visual_search: one network, one loss, one reader, one callback."""
