#!/usr/bin/env bash
# The quality tables of README.md and docs/quality.md, from training to table. Takes the folder that holds the data sets and
# the BEIR folders by name; about twenty minutes on two cores.
set -euo pipefail
data=$(realpath "${1:?usage: runs/quality.sh DATA_FOLDER}")
cd "$(dirname "$0")/.."

shown="scifact squad-a cranfield cisi"
marco="msmarco-dl19 msmarco-dev-a"
uv run python benchmarks/hybrid_weight.py --data "$data/qa"
uv run python benchmarks/quality.py qa --data "$data" --train qa --collections $shown
uv run python benchmarks/quality.py msmarco --data "$data" --train msmarco --collections $marco
uv run python benchmarks/quality.py qa_msmarco --data "$data" --train qa msmarco --collections $marco $shown
uv run python benchmarks/quality.py qa_infonce --data "$data" --train qa --collections $shown --loss infonce
uv run python docs/build/tables.py
