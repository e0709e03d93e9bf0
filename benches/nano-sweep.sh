#!/bin/sh
# Every optimizer at its own best rate: granite-nano, 300 steps on text as bytes, on the CPU.
# Usage: benches/nano-sweep.sh DATA RESULTS [PARALLEL]     DATA is a folder of parquet files or a text file.
# Seed 1 chooses the rate, seeds 2, 3 and 4 give the figures. The optimizers and rates are those of
# docs/optimizers.md; a run is named OPTIMIZER-RATE-SEED.
set -eu
data=$1 results=$2 parallel=${3:-1}
export RAYON_NUM_THREADS=2

runs() {
    for optimizer in muon nolah orthonoise isotropic muon-nesterov; do
        for lr in 0.01 0.02 0.04 0.08; do echo "$optimizer $lr 1"; done
    done
    echo "muon-nesterov 0.005 1"
    for optimizer in block-muon block-periodic moonlight normuon; do
        for lr in 0.0025 0.005 0.01 0.02; do echo "$optimizer $lr 1"; done
    done
    for lr in 0.0015 0.003 0.006 0.012; do echo "adamw $lr 1"; done
    for seed in 2 3 4; do
        for best in "muon 0.02" "nolah 0.02" "orthonoise 0.02" "isotropic 0.02" "muon-nesterov 0.01" \
            "block-muon 0.005" "block-periodic 0.005" "moonlight 0.005" "normuon 0.005" "adamw 0.003"; do
            echo "$best $seed"
        done
    done
}

train() {
    muon train --model granite-nano --data "$data" --tokenizer bytes --examples 10000 --steps 300 --eval-steps 300 \
        --device cpu --results "$results" --optimizer "$1" --lr "$2" --seed "$3" --name "$1-$2-$3" >/dev/null
}

if [ "${4:-}" ]; then
    train $4
    exit
fi
runs | xargs -P "$parallel" -I{} "$0" "$data" "$results" "$parallel" {}
