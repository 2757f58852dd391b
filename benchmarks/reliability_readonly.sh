#!/usr/bin/env bash
# The program as the Docker image runs it, without Docker: an ordinary user, a read-only root, /data and an empty /tmp to write to.
#
#   sudo PYTHON=<python of an environment with the dependencies> benchmarks/reliability_readonly.sh
#
# The package is installed as the Dockerfile does (pip install, root's files) into a root of its own, made of read-only binds in
# a mount namespace; the Dockerfile's ENV lines are the surroundings. Sorts the sample recording twice, then shows that nothing
# else could be written. Needs root, unshare, chroot and setpriv (util-linux); the system outside is not changed.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}

if [ "${1:-}" != inside ]; then
  work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
  mkdir -p "$work/root" "$work/site" "$work/data"
  "$python" -m pip install --quiet --no-deps --no-build-isolation --no-index --target "$work/site" "$here" 2>/dev/null ||
    "$python" -m pip install --quiet --no-deps --target "$work/site" "$here"
  cp "$here/sample_data/tetrode.h5" "$work/data/"
  chown -R 1000:1000 "$work/data"
  unshare --mount --pid --fork "$0" inside "$work" "$here/Dockerfile"
  exit
fi

work=$2 dockerfile=$3 root=$2/root
mount --make-rprivate /
mount -t tmpfs -o mode=755 none "$root"
mkdir -p "$root"/{tmp,data,proc,dev/shm,opt/site}
mount -t proc none "$root/proc"
mount -t tmpfs -o mode=1777,noexec,nosuid,nodev none "$root/tmp"  # as docker run --tmpfs has it
mount -t tmpfs -o mode=1777 none "$root/dev/shm"
for device in null zero urandom; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
readonly_bind() {
  mkdir -p "$root$1"; mount --bind "${2:-$1}" "$root$1"; mount -o remount,bind,ro "$root$1"
}
for folder in /usr /etc /bin /lib /lib64 /sbin; do
  if [ -L "$folder" ]; then ln -s "$(readlink "$folder")" "$root$folder"; elif [ -d "$folder" ]; then readonly_bind "$folder"; fi
done
for folder in $("$python" -c 'import sys; print("\n".join(dict.fromkeys((sys.base_prefix, sys.prefix))))'); do
  case $folder in /usr|/usr/*) ;; *) readonly_bind "$folder" ;; esac
done
readonly_bind /opt/site "$work/site"
mount --bind "$work/data" "$root/data"
mount -o remount,ro "$root"

settings=$(sed -n 's/^ENV //p' "$dockerfile")
as_user() {
  # shellcheck disable=SC2086
  chroot "$root" setpriv --reuid 1000 --regid 1000 --clear-groups --bounding-set=-all --no-new-privs \
    env -i PATH=/usr/bin:/bin PYTHONPATH=/opt/site $settings sh -c "cd /data && $1"
}
echo "runs as: $(as_user id)"
as_user "$python -c 'import spikecrsae; print(\"package:\", spikecrsae.__file__)'"
for name in first second; do
  began=$(date +%s)
  as_user "$python -m spikecrsae sort tetrode.h5 -o $name --quiet --export phy" >/dev/null
  echo "sort, $name: exit code $?, $(($(date +%s) - began)) s, $(as_user "ls $name | wc -l") entries"
done
as_user "cmp first/spikes.csv second/spikes.csv" && echo "both gave the same spikes"
echo "compiled code kept: $(as_user 'find /tmp/numba -name "*.nbc" | wc -l') files"
for place in / /opt/site /usr /etc; do
  if as_user "touch $place/x" 2>/dev/null; then echo "$place could be written"; exit 1; fi
done
echo "nothing but /data, /tmp and /dev/shm could be written"
