#!/bin/sh
# Whether the fast kernels of a GPU train as the plain ones do: the same model, data and seeds with both.
# Usage: benches/loss-bands.sh RESULTS [MODEL] [STEPS] [BATCH] [PARALLEL]
# Prints, for each seed, the validation loss and the mean training loss of the last 20 steps, then mean and range of each.
set -eu
results=$1 model=${2:-granite-4.0-h-350m} steps=${3:-300} batch=${4:-8} parallel=${5:-1}

if [ "${6:-}" ]; then
    muon train --model "$model" --device cuda --batch-size "$batch" --seq-len 512 --steps "$steps" \
        --eval-steps "$steps" --save-steps 0 --ortho gram --diagnostics off --seed "$7" --set "train.kernels=$6" \
        --results "$results" --name "$6-$7" >/dev/null
    exit
fi
for kernels in fast plain; do
    for seed in 1 2 3; do echo "$kernels $seed"; done
done | xargs -P "$parallel" -L 1 "$0" "$results" "$model" "$steps" "$batch" "$parallel"

python3 - "$results" <<'END'
import csv, pathlib, statistics, sys

for kernels in ("fast", "plain"):
    last, held = [], []
    for seed in (1, 2, 3):
        with open(pathlib.Path(sys.argv[1]) / f"{kernels}-{seed}" / "metrics.csv") as file:
            rows = list(csv.DictReader(file))
        last.append(statistics.mean(float(row["loss"]) for row in rows[-20:]))
        held.append(float(rows[-1]["val_loss"]))
        print(f"{kernels} seed {seed}: validation {held[-1]:.4f}, last 20 steps {last[-1]:.4f}")
    for name, values in (("validation", held), ("last 20 steps", last)):
        print(f"{kernels} {name}: mean {statistics.mean(values):.4f}, {min(values):.4f} to {max(values):.4f}")
END
