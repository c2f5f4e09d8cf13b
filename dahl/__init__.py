"""The tensor core: StarPU from Python, tiles, operations, layers, models, data sets, training."""
