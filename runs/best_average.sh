#!/usr/bin/env bash
# The average tower of docs/recurrent.md, trained on everything that is there. Takes the folder that holds the data sets by
# name and the folder for the model; about twenty minutes on two cores, most of it for the teacher's vectors, made once.
set -euo pipefail
data=$(realpath "${1:?usage: runs/best_average.sh DATA_FOLDER MODEL_FOLDER}")
model=$(realpath -m "${2:?usage: runs/best_average.sh DATA_FOLDER MODEL_FOLDER}")
cd "$(dirname "$0")/.."

uv run two-towers train --dataset "$data/qa" "$data/msmarco" --output "$model" --no-wandb \
    --rows distilled --loss infonce --distill 5 --train-length 64 --batch-size 2048 --epochs 15
