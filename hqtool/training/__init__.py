"""Training with quantizers: an unmodified script, or one's own loop, as a recipe says.

`with hqtool.train(model, "paper-w8a8g8"):` is `call.train`. A script may save what estimators know
beside its checkpoints, by `state_dict` and `load_state_dict`. Importing the package loads neither
torch nor h5py; only its submodules do.
"""

from hqtool.training.sites.saved_state import load_state_dict, state_dict

__all__ = ["load_state_dict", "state_dict"]
