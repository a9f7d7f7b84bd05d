#!/usr/bin/env bash
# A light query tower over the documents of all-MiniLM-L6-v2 (docs/light-query.md): an average of token vectors that learns
# from queries alone. Takes the folder that holds the data sets by name and the folder for the model. On two cores about a
# minute, after the transformer's vectors of queries and validation passages, which are made once.
set -euo pipefail
data=$(realpath "${1:?usage: runs/light_query.sh DATA_FOLDER MODEL_FOLDER}")
model=$(realpath -m "${2:?usage: runs/light_query.sh DATA_FOLDER MODEL_FOLDER}")
cd "$(dirname "$0")/.."

uv run two-towers train --dataset "$data/qa" "$data/msmarco" --output "$model" --no-wandb \
    --query-tower average --document-tower transformer --loss align
