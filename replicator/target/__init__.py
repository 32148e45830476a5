"""The one owner of this node's LIO configuration: wanted tree, difference, application."""
