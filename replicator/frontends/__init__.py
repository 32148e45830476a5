"""What hosts talk to: NBD and the LIO user backstore (TCMU)."""
