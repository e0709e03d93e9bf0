#!/bin/sh
# The figures of docs/performance-log.md that need an H100, in one go, some eight minutes; `muon` must be on the path.
# Usage: benches/h100.sh OUT     OUT gets a text file for each part, and the runs of the loss bands.
set -eu
here=$(dirname "$0") out=$1
mkdir -p "$out"

step() { muon bench step --device cuda --steps 20 "$@"; }

part() { # NAME: what comes on standard input, run as shell lines, its output to a file
    echo "== $1" >&2
    while read -r line; do
        echo "\$ $line"
        eval "$line" 2>&1 || echo "(exit $?)"
    done >"$out/$1.txt"
}

part machine <<'END'
muon --version
muon doctor
nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv
END
part kernels <<'END'
muon lab kernels --device cuda
END
part steps <<'END'
step --model granite-4.0-h-350m --optimizer muon --ortho gram --detail
step --model granite-4.0-h-350m --optimizer muon --ortho polar-express --set optimizer.ortho_steps=5
step --model granite-4.0-h-350m --optimizer adamw
step --model granite-4.0-h-350m --optimizer adamw --set train.kernels=plain
step --model qwen-block-muon --optimizer adamw --detail --compare
step --model qwen-block-muon --optimizer adamw --precision bf16 --detail
step --model qwen-block-muon --optimizer muon --ortho gram
step --model qwen-block-muon --optimizer adamw --precision bf16 --set optimizer.state=bf16
step --model qwen-block-muon --optimizer muon --ortho gram --precision bf16
step --model qwen-block-muon --optimizer muon --ortho gram --precision bf16 --set optimizer.state=bf16 --detail
step --model qwen-block-muon --optimizer muon --ortho gram --precision bf16 --set optimizer.state=bf16 --set optimizer.split=heads
END
part optim <<'END'
muon bench optim --model granite-4.0-h-350m --device cuda
muon bench optim --model granite-4.0-h-350m --device cuda --condition 1e4
END
part lengths <<'END'
step --model granite-4.0-h-350m --optimizer adamw --batch 16 --seq 512
step --model granite-4.0-h-350m --optimizer adamw --batch 8 --seq 1024
step --model granite-4.0-h-350m --optimizer adamw --batch 4 --seq 2048
step --model granite-4.0-h-350m --optimizer adamw --batch 2 --seq 4096
step --model granite-4.0-h-350m --optimizer adamw --batch 1 --seq 8192
END
part batches <<'END'
step --model granite-4.0-h-1b --optimizer muon --ortho gram --batch 2 --seq 512
step --model granite-4.0-h-1b --optimizer muon --ortho gram --batch 4 --seq 512
step --model granite-4.0-h-1b --optimizer muon --ortho gram --batch 8 --seq 512
step --model granite-4.0-h-1b --optimizer muon --ortho gram --batch 16 --seq 512
step --model granite-4.0-h-1b --optimizer muon --ortho gram --batch 32 --seq 512
step --model granite-4.0-h-1b --optimizer muon --ortho gram --batch 16 --seq 512 --set train.recompute=layers
step --model granite-4.0-h-1b --optimizer muon --ortho gram --batch 32 --seq 512 --set train.recompute=layers
step --model granite-4.0-h-1b --optimizer muon --ortho gram --batch 64 --seq 512 --set train.recompute=layers
step --model granite-4.0-h-350m --optimizer adamw --set train.recompute=layers
END
echo "== loss bands" >&2
"$here/loss-bands.sh" "$out/runs" granite-4.0-h-350m 300 8 1 >"$out/loss-bands.txt" 2>&1
