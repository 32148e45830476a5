"""The journal on a block device: pages, ring, recovery (docs/formats/journal.md)."""
