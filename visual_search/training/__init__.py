"""Lightning: the module around a variant, the data module, callbacks. The only room that has it."""
