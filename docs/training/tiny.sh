#!/usr/bin/env bash
# The embedded tiny model, from nothing to training/tiny, on one GPU in about half an hour. Run in the repository's root.
set -euo pipefail
python3 -m kandinsky.training.world.model_set training/tiny
[ -d training/tiny/text_encoder ] || python3 -m kandinsky.training.world.text training/tiny
[ -d training/tiny/vae ] || python3 -m kandinsky.training.world.vae training/tiny --seconds "${VAE_SECONDS:-390}"
[ -d training/data ] || {
    rm -rf training/data.partial
    python3 -m kandinsky.training.world.data training/data.partial --weights training/tiny --clips "${CLIPS:-24000}"
    mv training/data.partial training/data
}
[ -f training/teacher.safetensors ] || {
    python3 -m kandinsky.training.pretrain docs/training/tiny_pretrain.yaml
    cp training/teacher/checkpoint-*/ema.safetensors training/teacher.safetensors
}
python3 -m kandinsky.training.ladd docs/training/tiny_ladd.yaml
cp training/student/checkpoint-*/ema.safetensors training/student.safetensors
python3 -m kandinsky.training.publish training/student.safetensors training/tiny
python3 -m kandinsky.training.world.evaluate --weights training/tiny --teacher training/teacher.safetensors \
    --student training/student.safetensors --prompts "${PROMPTS:-240}" --json training/evaluation.json
