"""Where the loading of batches was before `training.data`: scripts may import it from here."""

from raysgd_local.training.data.batches import collate_of, to_device

__all__ = ["collate_of", "to_device"]
