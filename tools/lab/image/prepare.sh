#!/bin/sh
# Runs on the building machine after the essential packages are in, before the others.
# $1 is the root of the new system.
set -eu
# An initial RAM disk with the few drivers that a QEMU guest boots with: small, so it unpacks fast.
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
printf 'MODULES=list\nCOMPRESS=zstd\nRESUME=none\n' >"$1/etc/initramfs-tools/conf.d/towline"
printf '%s\n' virtio_pci virtio_blk ext4 crc32c_generic >"$1/usr/share/initramfs-tools/modules.d/towline"
# No service starts while packages are installed.
printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
chmod 0755 "$1/usr/sbin/policy-rc.d"
