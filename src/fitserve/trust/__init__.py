"""What may be loaded, and how it is looked at before it is: policy, allow-list, unpickler, structure."""
