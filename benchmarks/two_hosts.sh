#!/usr/bin/env bash
# Two hosts train one model, one of them loses its process, and the run goes on.
#
#     sudo benchmarks/two_hosts.sh    # about three minutes; needs iproute2, and root for namespaces
#
# Each host is a network namespace of this machine; a pair of virtual cards joins them. torchrun
# starts a process in each. When the run has come to step 60, the process of the second host is
# killed (SIGKILL). torchrun starts both again, and they go on from the last checkpoint. At the end
# the weights are compared with those of a run in one process that nobody disturbed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=$PWD/.venv/bin
work=$(mktemp -d)
hosts=(videomae0 videomae1)

cleanup() {
    kill $(jobs -p) 2>/dev/null || true
    for host in "${hosts[@]}"; do ip netns del "$host" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT

for host in "${hosts[@]}"; do ip netns add "$host"; done
ip link add vmae0 type veth peer name vmae1
for i in 0 1; do
    ip link set "vmae$i" netns "${hosts[i]}"
    ip -n "${hosts[i]}" addr add "10.77.0.$((i + 1))/24" dev "vmae$i"
    ip -n "${hosts[i]}" link set lo up
    ip -n "${hosts[i]}" link set "vmae$i" up
done

export OMP_NUM_THREADS=1 TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
"$bin/videomae" actions "$work/videos" --clips 240 --test-clips 0 >/dev/null
settings=(pretrain "data=$work/videos" preset=tiny mask=random mask_ratio=0.75 epochs=16
    batch_size=32 log_every_steps=1 save_every_steps=10 device=cpu dtype=float32 tracker=none)
for i in 0 1; do
    GLOO_SOCKET_IFNAME=vmae$i ip netns exec "${hosts[i]}" "$bin/torchrun" \
        --nnodes 2 --nproc-per-node 1 --max-restarts 3 --rdzv-backend c10d --rdzv-id two \
        --rdzv-endpoint 10.77.0.1:29400 --rdzv-conf "is_host=$((1 - i))" \
        --local-addr "10.77.0.$((i + 1))" \
        -m videomae "${settings[@]}" "output=$work/pair" --resume >"$work/host$i.log" 2>&1 &
done

log=$work/pair/log.jsonl
until [[ -f $log && $(wc -l <"$log") -ge 60 ]]; do sleep 0.1; done
for pid in $(ip netns pids "${hosts[1]}"); do
    if grep -q torchrun "/proc/$pid/cmdline"; then continue; fi
    echo "$(date +%T) step $(tail -n 1 "$log" | tr -dc '0-9,' | cut -d, -f1): killing process $pid of the second host"
    kill -9 "$pid"
    break
done
wait
grep -h "from step" "$work"/host*.log
echo "$(date +%T) step $(wc -l <"$log") of the run: finished"

"$bin/videomae" "${settings[@]}" "output=$work/alone" >/dev/null 2>&1
"$bin/python" - "$work" <<'PYTHON'
import sys
from pathlib import Path

from videomae import VideoMAEForPreTraining
from videomae.report.record import read_log

work = Path(sys.argv[1])
pair, alone = ([row["loss"] for row in read_log(work / name)] for name in ("pair", "alone"))
weights = [
    VideoMAEForPreTraining.from_pretrained(work / name / "model").state_dict()
    for name in ("pair", "alone")
]
furthest = max((weights[0][name] - weights[1][name]).abs().max().item() for name in weights[0])
print(f"{len(pair)} losses differ from those of one undisturbed process by at most "
      f"{max(abs(a - b) for a, b in zip(pair, alone, strict=True)):.1e}, weights by {furthest:.1e}")
PYTHON
