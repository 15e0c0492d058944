"""When to evaluate, draw and log; the arithmetic is in the rooms of ring 1.

==========================  ========================================================================
``retrieval.py``            measures during training (validation asks) and at its end (test asks)
``history.py``              what every epoch measured, as a table beside the results
``charts.py``               how many items of each category, and how well each is found
``projection.py``           the gallery in three dimensions: UMAP, TensorBoard's projector
``reconstructions.py``      beside originals, the same items every time
``feature_maps.py``         what every encoder layer answers to a picture
``search_results.py``       queries and the items found for them
``neighbour_positives.py``  partners by an embedding that learns nothing, then by the own
``progress.py``             a bar that speaks of pictures a second
==========================  ========================================================================
"""
