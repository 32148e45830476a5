#!/usr/bin/env bash
# Install the Debian packages that Towline's lab and tests use; say which, when not root.
#   tools/packages.sh            install what is missing
#   tools/packages.sh --check    only say what is missing (exit 17 if anything is)
set -euo pipefail

packages=(
    # a virtual environment and make
    python3 python3-venv make git
    # the lab's virtual machines: image, machines, disks
    qemu-system-x86 qemu-utils mmdebstrap e2fsprogs openssh-client
    # clients that we did not write, for the demo, the tests and the bench
    fio libnbd-bin nbdkit libiscsi-bin
    # failing system calls on purpose
    fiu-utils
)

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ $state == installed ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

command="apt-get install --yes --no-install-recommends ${missing[*]}"
if [[ ${1:-} == --check || $(id -u) -ne 0 ]]; then
    echo "missing packages: ${missing[*]}" >&2
    echo "as root: $command" >&2
    exit 17
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet
$command </dev/null
