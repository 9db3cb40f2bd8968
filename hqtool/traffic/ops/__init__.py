"""The operations of a network: the tensors of each, and the works of its passes."""
