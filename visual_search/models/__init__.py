"""Networks, plain torch, and embeddings that learn nothing.

===========================  =======================================================================
Networks
``encoder.py``               the contract: what every network can do
``autoencoder.py``           the same for autoencoders, and how a layer table becomes a network
``variants.py``              the named autoencoders: a new one is a builder over a layer table
``variational.py``           every picture becomes a distribution over embeddings
``plain.py``                 convolutions with batch norm: small and quick
``residual.py``              an encoder, and the same with a way back
``backbones.py``             of timm, torchvision and open_clip as encoders
``backbone_networks.py``     all behind one face: pooled values, maps by name; timm, torchvision
``open_clip_network.py``     the image towers of open_clip: CLIP, SigLIP, fashion models
``backbone_weights.py``      from files: read as tensors, fitted strictly
``hub_folder.py``            what a hub's folder says of its weights: network, scale of pictures
The embedding
``embedding.py``             from what an encoder computes to what is indexed: layer, pooling
``pca_whitening.py``         PCA of a gallery's features, as a part of the network
``handcrafted.py``           descriptors that stand beside what a network learned
``letterbox.py``             what a letterboxed picture shows
``gradients.py``             histograms of oriented gradients, on any device
Floors
``floors.py``                embeddings that learn nothing: the floors of a result
``floor_items.py``           the items and pictures that they see
``descriptors.py``           random numbers, colours, pixels, gradients
``principal_components.py``  PCA of descriptions, fitted on the gallery alone
Export
``exporting.py``             to a file that a search can run without PyTorch
``export_check.py``          whether that gives what the network gives
Rooms within
``objectives/``              what a network is trained for
===========================  =======================================================================
"""
