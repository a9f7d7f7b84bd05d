#!/usr/bin/env bash
# Two recurrent towers in the space of all-MiniLM-L6-v2 (docs/recurrent.md): they learn its vectors of queries and passages,
# without a label, so no transformer is needed to index. Takes the folder that holds the data sets by name and the folder for
# the model. The transformer's vectors of 107,000 passages take half an hour on two cores, once; training about 20 minutes.
set -euo pipefail
data=$(realpath "${1:?usage: runs/aligned_recurrent.sh DATA_FOLDER MODEL_FOLDER}")
model=$(realpath -m "${2:?usage: runs/aligned_recurrent.sh DATA_FOLDER MODEL_FOLDER}")
cd "$(dirname "$0")/.."

uv run two-towers train --dataset "$data/qa" "$data/msmarco" --output "$model" --no-wandb \
    --tower recurrent --rows encoded --loss align --epochs 4
