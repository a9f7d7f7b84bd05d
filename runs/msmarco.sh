#!/usr/bin/env bash
# MS MARCO passage ranking, whole: from the published files to MRR@10 on dev and NDCG@10 on TREC DL 2019 and 2020, with a run
# file for each. Takes a folder for the files (fetched where they are missing, 1.3 GB) and one for what is made.
#
# BM25 finds the first hard negatives, the towers find their own ones for a second training, the bundle is what is measured.
# Flags of `train` in TRAIN_FLAGS are added to both trainings: TRAIN_FLAGS="--tower recurrent --batch-size 1024".
set -euo pipefail
files=$(realpath -m "${1:?usage: runs/msmarco.sh FILES_FOLDER OUTPUT_FOLDER}")
made=$(realpath -m "${2:?usage: runs/msmarco.sh FILES_FOLDER OUTPUT_FOLDER}")
cd "$(dirname "$0")/.."
mkdir -p "$files" "$made"

published=https://msmarco.z22.web.core.windows.net/msmarcoranking
trec=https://trec.nist.gov/data/deep
if [ ! -e "$files/collection.tsv" ]; then
    curl --fail --location "$published/collectionandqueries.tar.gz" | tar --extract --gzip --directory "$files"
fi
for year in 2019 2020; do
    queries=msmarco-test$year-queries.tsv
    [ -e "$files/$queries" ] || curl --fail --location "$published/$queries.gz" | gunzip >"$files/$queries"
    [ -e "$files/${year}qrels-pass.txt" ] || curl --fail --location --output "$files/${year}qrels-pass.txt" "$trec/${year}qrels-pass.txt"
done

read -ra more <<<"${TRAIN_FLAGS:-}"
train=(uv run two-towers train --negatives given --loss infonce --no-wandb)

uv run two-towers mine untrained "$files" --by bm25 --output "$made/bm25.parquet"
"${train[@]}" --dataset "$made/bm25.parquet" --output "$made/first" --rows distilled "${more[@]}"
uv run two-towers mine "$made/first" "$files" --output "$made/mined.parquet"
"${train[@]}" --dataset "$made/mined.parquet" --output "$made/model" --init "$made/first" "${more[@]}"

uv run two-towers index "$made/model" "$files/collection.tsv" --quantize fp16 --output "$made/bundle"
for part in dev dl19 dl20; do
    for method in bm25 dense hybrid; do
        uv run two-towers evaluate "$made/bundle" "$files/$part" --method "$method" --run "$made/$part-$method.run"
    done
done
