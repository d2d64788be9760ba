#!/usr/bin/env bash
# What only a GPU can tell, in at most eight minutes of one: its tests, what steps cost, seeds of a plan.
#
#   bash benchmarks/gpu.sh
#
# Results go to $OUT (gpu_results). What fails is said at the end; the rest is done. Settings, in the
# environment: TIME_LIMIT in seconds (470), PYTHON, PLAN and JOBS (trainings at a time), PYTEST and SPEED
# (options in place of those below). A copy without .git names its commit in .gpu/commit.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-gpu_results}
limit=${TIME_LIMIT:-470}
plan=${PLAN:-benchmarks/camvid_pretrained.py}
python=${PYTHON:-python3}
if [ -d .git ]; then :; elif [ -f .gpu/commit ]; then
    MMSEG_ADM_COMMIT=$(head -n 1 .gpu/commit)
    export MMSEG_ADM_COMMIT
fi
mkdir -p "$out"
failed=()

# Runs a part for at most so many seconds, and never beyond the limit.
part() {
    local name=$1 most=$2 status=0
    shift 2
    local left=$((limit - SECONDS))
    if ((left < 10)); then
        failed+=("$name: no time left")
        return
    fi
    timeout --kill-after=10 "$((most < left ? most : left))" "$@" >"$out/$name.txt" 2>&1 || status=$?
    echo "$name: exit status $status after $SECONDS s"
    # A benchmark that the time has ended goes on in another sitting.
    if ((status)) && [[ $name != benchmark || $status -ne 124 ]]; then
        failed+=("$name: exit status $status")
    fi
}

part info $((limit / 8)) "$python" -m mmseg_adm info
# shellcheck disable=SC2086
part tests $((limit / 3)) "$python" -m pytest -q -m gpu -p no:cacheprovider ${PYTEST:--n 4 tests/test_gpu.py}
# shellcheck disable=SC2086
part speed_512x1024 $((limit / 5)) "$python" -W ignore benchmarks/speed.py ${SPEED:---pairs pspnet-r101-512x1024 \
    --classes 19 --methods adm cwd --precision float32 float16 bfloat16 --rounds 5}
# shellcheck disable=SC2086
part speed_512x512 $((limit / 8)) "$python" -W ignore benchmarks/speed.py ${SPEED:---pairs pspnet-r101-512x512 \
    --classes 150 --methods adm cwd --precision float16 --rounds 5}
part benchmark "$limit" "$python" -m mmseg_adm benchmark "$plan" --jobs "${JOBS:-14}" \
    --work-dir "$out/work_dir"
results=$(dirname "$plan")/results/$(basename "$plan" .py).jsonl
if [ -f "$results" ]; then cp "$results" "$out"; fi
# Logs and curves, without the weights.
find "$out/work_dir" -name '*.pth' -delete 2>/dev/null
for each in "${failed[@]}"; do echo "failed: $each"; done
((${#failed[@]} == 0))
