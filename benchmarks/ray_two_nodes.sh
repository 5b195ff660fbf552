#!/usr/bin/env bash
# A batch job on a Ray cluster of two nodes, one of which is killed in the middle.
#
#     sudo benchmarks/ray_two_nodes.sh    # some minutes; needs iproute2, root, and the extra `ray`
#
# Each node is a network namespace of this machine; a pair of virtual cards joins them. The job runs
# in the first. When the folder has its third part, all processes of the second node are killed
# (SIGKILL). The rows are compared with those of a job without Ray. Then a job without Ray is killed
# twice and resumed. BIN names the folder of python and ray, by default .venv/bin.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=${BIN:-$PWD/.venv/bin}
export PYTHONPATH=$PWD/src:$PWD OMP_NUM_THREADS=1 RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0
work=$(mktemp -d)
nodes=(videomae0 videomae1)

cleanup() {
    for node in "${nodes[@]}"; do
        for pid in $(ip netns pids "$node" 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
        ip netns del "$node" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT

for node in "${nodes[@]}"; do ip netns add "$node"; done
ip link add vray0 type veth peer name vray1
for i in 0 1; do
    ip link set "vray$i" netns "${nodes[i]}"
    ip -n "${nodes[i]}" addr add "10.78.0.$((i + 1))/24" dev "vray$i"
    ip -n "${nodes[i]}" link set lo up
    ip -n "${nodes[i]}" link set "vray$i" up
done

"$bin/python" -m videomae actions "$work/videos" --clips 480 --test-clips 0 >/dev/null
echo "no video" >"$work/videos/bad.mp4"
embed=("$bin/python" -m videomae embed --input "$work/videos" --dtype float32)
"${embed[@]}" --output "$work/here" || true

common=(--num-cpus 2 --memory 8000000000 --object-store-memory 300000000)
ip netns exec "${nodes[0]}" "$bin/ray" start --head --node-ip-address 10.78.0.1 --port 6379 \
    --include-dashboard false "${common[@]}" >"$work/node0.log" 2>&1
ip netns exec "${nodes[1]}" "$bin/ray" start --address 10.78.0.1:6379 \
    --node-ip-address 10.78.0.2 "${common[@]}" >"$work/node1.log" 2>&1
ip netns exec "${nodes[0]}" "${embed[@]}" --output "$work/ray" --part-size 40 \
    --ray 10.78.0.1:6379 >"$work/ray.out" 2>"$work/ray.err" &
job=$!
parts() { find "$1" -name '[pb]a*.parquet' 2>/dev/null | wc -l; }
until [[ $(parts "$work/ray") -ge 3 ]]; do
    kill -0 "$job" 2>/dev/null || { cat "$work/ray.err"; exit 1; }
    sleep 0.1
done
echo "$(date +%T) $(parts "$work/ray") parts are there: killing the second node, which runs:"
for pid in $(ip netns pids "${nodes[1]}"); do
    tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c -60 | grep "^ray::Map" || true
done | sort | uniq -c
for pid in $(ip netns pids "${nodes[1]}"); do kill -9 "$pid" 2>/dev/null || true; done
wait "$job" || true
echo "$(date +%T) $(cat "$work/ray.out")"

echo "without Ray, killed after 3 parts, and after 6:"
for stop in 3 6 1000; do
    "${embed[@]}" --output "$work/killed" --part-size 40 --resume 2>"$work/killed.err" &
    job=$!
    while kill -0 "$job" 2>/dev/null && [[ $(parts "$work/killed") -lt $stop ]]; do sleep 0.05; done
    kill -9 "$job" 2>/dev/null || true
    wait "$job" 2>/dev/null || true
    echo "$(date +%T) $(parts "$work/killed") parts"
done

"$bin/python" - "$work" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np

from videomae.footage.batch import read_batch

found = {name: read_batch(Path(sys.argv[1], name)) for name in ("here", "ray", "killed")}
order = [("path", "ascending"), ("start_seconds", "ascending")]
reference = found["here"].table.sort_by(order)
for name, rows in found.items():
    table = rows.table.sort_by(order)
    videos = len(set(table["path"].to_pylist()))
    values = (np.array(each["features"].to_pylist()) for each in (table, reference))
    print(
        f"{name:7} {len(table)} rows about {videos} videos, {len(rows.bad)} bad;",
        "the same paths," if table["path"].equals(reference["path"]) else "OTHER PATHS,",
        f"features differ by at most {np.abs(np.subtract(*values)).max():.1e}",
    )
PYTHON
