"""Products and their pictures: readers, splits, decoding, the cache."""
