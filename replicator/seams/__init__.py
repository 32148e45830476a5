"""The only modules that touch the kernel: block devices, UIO, LIO, sockets, locks."""
