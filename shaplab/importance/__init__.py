"""Global importance: which features lower the loss, for one row and for all."""
