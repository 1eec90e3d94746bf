#!/usr/bin/env bash
# The bundled model on one prompt per voice, with its speed and the picture of its experts.
#   tools/demo.sh build/release/sluice        MODEL=folder to try another model
set -euo pipefail
sluice=${1:-build/release/sluice}
model=${MODEL:-models/three-voices}
if [ ! -f "$model/config.json" ]; then
  echo "no model in $model: config.json is missing" >&2
  exit 1
fi
for prompt in "It is a truth universally" "In the beginning God" "HAMLET."; do
  echo; echo "=== $prompt"
  "$sluice" run "$model" -p "$prompt" -n 60 --temp 0.8 --top-p 0.95 --experts
done
