"""Training with quantizers: an unmodified script, or one's own loop, as a recipe says.

`with hqtool.train(model, "paper-w8a8g8"):` is `call.train`. Importing the package loads neither
torch nor h5py; only its submodules do.
"""
