"""The embedded lab: three sites as three processes on plain files, without root or VMs."""
