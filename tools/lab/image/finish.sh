#!/bin/sh
# Runs on the building machine when all packages are in. $1 is the root of the new system.
set -eu
root=$1
rm -f "$root/usr/sbin/policy-rc.d"
# Every machine has its own identity: host keys, initiator name and machine id come later.
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/iscsi/initiatorname.iscsi" "$root/etc/hostname"
: >"$root/etc/machine-id"
echo 'LABEL=root / ext4 noatime,errors=remount-ro 0 0' >"$root/etc/fstab"

# The seed disk of a machine carries its files (name, keys, links); they are copied before
# anything that reads them starts.
cat >"$root/usr/local/sbin/lab-seed" <<'SEED'
#!/bin/sh
set -eu
mkdir -p /run/lab-seed
mount -o ro /dev/disk/by-id/virtio-seed /run/lab-seed
cp -a --no-preserve=ownership /run/lab-seed/tree/. /
while read -r mac name; do
    for interface in /sys/class/net/*; do
        [ "$(cat "$interface/address")" = "$mac" ] || continue
        [ "${interface##*/}" = "$name" ] || ip link set "${interface##*/}" name "$name"
    done
done </run/lab-seed/links
umount /run/lab-seed
SEED
chmod 0755 "$root/usr/local/sbin/lab-seed"
cat >"$root/etc/systemd/system/lab-seed.service" <<'UNIT'
[Unit]
Description=Copy this machine's own files from its seed disk
DefaultDependencies=no
RequiresMountsFor=/
Wants=dev-disk-by\x2did-virtio\x2dseed.device
After=dev-disk-by\x2did-virtio\x2dseed.device systemd-remount-fs.service systemd-udev-trigger.service
Before=sysinit.target systemd-networkd.service network-pre.target
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/lab-seed
ExecStartPost=-/bin/sh -c 'cat /etc/hostname >/proc/sys/kernel/hostname'

[Install]
WantedBy=sysinit.target
UNIT

chroot "$root" systemctl enable --quiet lab-seed.service systemd-networkd.service ssh.service
# What a machine that lives for an hour does not need.
chroot "$root" systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-networkd-wait-online.service \
    systemd-resolved.service systemd-timesyncd.service getty@tty1.service \
    blk-availability.service dev-hugepages.mount dev-mqueue.mount systemd-binfmt.service \
    proc-sys-fs-binfmt_misc.automount systemd-pstore.service 2>/dev/null || true
chroot "$root" systemctl disable --quiet multipathd.service multipathd.socket open-iscsi.service \
    nftables.service 2>/dev/null || true
# Each reload of systemd runs all generators, which takes long under emulation: one is needed.
mkdir -p "$root/etc/systemd/system-generators"
for generator in "$root"/lib/systemd/system-generators/*; do
    name=${generator##*/}
    [ "$name" = systemd-fstab-generator ] ||
        ln -sf /dev/null "$root/etc/systemd/system-generators/$name"
done
mkdir -p "$root/etc/ssh/sshd_config.d"
printf 'UseDNS no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nMaxSessions 64\nMaxStartups 64\n' \
    >"$root/etc/ssh/sshd_config.d/lab.conf"
# Half of a login's time under emulation goes into these session modules.
sed -i -E 's/^(session.*pam_motd)/#\1/; s/^(session.*pam_mail)/#\1/' "$root/etc/pam.d/sshd"
chroot "$root" passwd --lock root >/dev/null
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=persistent\nSystemMaxUse=64M\nForwardToConsole=no\n' \
    >"$root/etc/systemd/journald.conf.d/lab.conf"
mkdir -p "$root/var/log/journal"
