"""What a network is trained for.

======================  ============================================================================
``objective.py``        the contract: from what a step sees to the number that training lowers
``reconstruction.py``   draw pictures again; their networks need a decoder
``contrastive.py``      pull two views of an item together
``supervised.py``       learn from labels: the catalogue's columns
``classification.py``   classifiers on the embedding
``projection_head.py``  between an embedding and a contrastive loss
``settings.py``         checks of the numbers that an objective is built from
``precision.py``        where an objective leaves the step's bfloat16
======================  ============================================================================
"""
