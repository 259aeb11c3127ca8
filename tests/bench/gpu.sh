#!/usr/bin/env bash
# On a machine with an NVIDIA driver, and Python 3: checks every kernel and the golden models on its GPU, then measures
# random models of the published sizes, and prints one table.
#
#     tests/bench/gpu.sh PACK [PART...]      PACK: what tests/bench/gpu-pack made, or the folder that it unpacks to
#
# Parts: `tests`, a model (`codegemma-2b`), or a model in one format (`codegemma-2b:q4_k`); all if none is named.
# What each part found goes into the folder $RESULTS (gpu-results), and the table is of all that lies there, so the parts
# may be run one after the other. Models are made in $SCRATCH (a folder in /dev/shm, else in /tmp), and taken away again.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
pack=$1
shift
if [ -f "$pack" ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    # Python unpacks xz where tar does not.
    tar -xJf "$pack" -C "$folder" 2>/dev/null || python3 -m tarfile -e "$pack" "$folder"
    pack=$folder/gpu-pack
fi
python3 "$pack/measure.py" --pack "$pack" "$@"
