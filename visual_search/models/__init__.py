"""Networks, plain torch: the autoencoder contract and the named variants."""
