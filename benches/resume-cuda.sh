#!/bin/bash
# Runs on a GPU that are killed, twice, the first time in the middle of a save, and resumed, held to runs that were never
# interrupted: weights, optimizer state and rows must be the same bits. `muon` must be on the path; without a GPU it says
# SKIPPED. Usage: benches/resume-cuda.sh [CASE...]     CASE: a line of the table below by its first word; all unless told
set -euo pipefail
if ! nvidia-smi -L >/dev/null 2>&1; then
    echo "SKIPPED resume-cuda: no GPU"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# Name, steps, keys of the run; after a bar, keys that change when it is resumed.
cases='
350m-gram    12 --model granite-4.0-h-350m --optimizer muon --ortho gram
350m-bf16    12 --model granite-4.0-h-350m --optimizer muon --ortho gram --precision bf16 --rounding stochastic
350m-polar   12 --model granite-4.0-h-350m --optimizer muon
nano-gram    200 --optimizer muon --ortho gram | --set train.graphs=false
nano-eager   200 --optimizer muon --ortho gram --set train.graphs=false | --set train.graphs=true --set train.staging=off
nano-polar   200 --optimizer muon
nano-bf16    200 --optimizer normuon --precision bf16 --rounding stochastic
'
RANDOM=7
declare -A saves=([350m]=4 [nano]=20)

# Everything that a run of $2 steps, named $1, has come to, but for times and its name.
bits() {
    local run=results/$1
    sha256sum <"$run/model/model.safetensors"
    sha256sum <"$run/checkpoints/step-$2/optimizer.safetensors"
    cut -d, -f1-5,8- "$run/metrics.csv" | sha256sum
}

await() { # PATH PID: until it is there, or the process is gone
    until [ -e "$1" ] || ! kill -0 "$2" 2>/dev/null; do sleep 0.002; done
}

failed=0
while read -r name steps line; do
    if [ -z "$name" ] || { [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; }; then continue; fi
    keys=${line%%|*} later=
    if [[ $line == *"|"* ]]; then later=${line#*|}; fi
    every=${saves[${name%%-*}]}
    # shellcheck disable=SC2086 # words
    train() { exec muon train --device cuda --seed 7 --seq-len 512 --batch-size 8 --steps "$steps" --save-steps 0 \
        --checkpoint-steps "$every" --eval-steps 8 --set train.eval_batches=1 --set train.keep_best=0 $keys --name "$1"; }
    begin=$(date +%s%N)
    (train "$name-whole") >"$name.log" 2>&1
    # In the middle of the second save: its hidden folder is there.
    (train "$name-killed") >>"$name.log" 2>&1 &
    pid=$!
    await "results/$name-killed/checkpoints/.step-$((2 * every))" $pid
    kill -9 $pid || echo "$name: the first kill came too late"
    wait $pid 2>/dev/null || true
    # shellcheck disable=SC2086
    muon resume "$name-killed" $later >>"$name.log" 2>&1 &
    pid=$!
    await "results/$name-killed/checkpoints/step-$((2 * every))" $pid
    sleep 0.0$((RANDOM % 90 + 10))
    kill -9 $pid || echo "$name: the second kill came too late"
    wait $pid 2>/dev/null || true
    # shellcheck disable=SC2086
    muon resume "$name-killed" $later >>"$name.log" 2>&1 || tail -3 "$name.log"
    seconds=$((($(date +%s%N) - begin) / 1000000000))
    if [ "$(bits "$name-whole" "$steps")" = "$(bits "$name-killed" "$steps")" ]; then
        echo "OK $name: killed twice, resumed twice, $steps steps, the same bits ($seconds s)"
    else
        echo "DIFFERS $name ($seconds s)"
        failed=1
    fi
    grep -h "going on after" "$name.log" | sed 's/^/    /'
    rm -rf results
done <<<"$cases"
exit $failed
