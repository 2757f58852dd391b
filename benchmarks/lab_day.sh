#!/bin/sh
# A laboratory's day on the development recordings, without a hand; ends at the first step that fails.
#
#   SPIKECRSAE_DATA=<folder of the recordings> [PYTHON=python] benchmarks/lab_day.sh [FOLDER]
#
# info, batch with two workers, score where there is truth, Phy and NWB opened by the field's readers, the report in Chromium,
# a scripted curation as Phy saves it, compare, and a rerun that must be identical. FOLDER holds the results (a temporary one otherwise).
set -eu

: "${SPIKECRSAE_DATA:?names the folder of the development recordings}"
PYTHON=${PYTHON:-python}
here=$(cd "$(dirname "$0")" && pwd)
day=${1:-$(mktemp -d)}
mkdir -p "$day"
spikecrsae() { "$PYTHON" -m spikecrsae "$@"; }
step() { printf '\n== %s\n' "$*"; }

recordings="$SPIKECRSAE_DATA/hc1_tetrode_dev.h5 $SPIKECRSAE_DATA/mearec_tetrode6.h5 $SPIKECRSAE_DATA/synth_tetrode5.nwb $SPIKECRSAE_DATA/hc1_d533101_5s.h5"

step "info"
for recording in $recordings; do spikecrsae info "$recording" | head -4; done

step "batch, two workers"
# shellcheck disable=SC2086
spikecrsae batch $recordings -o "$day/sorted" --jobs 2 --export phy --export nwb --overwrite

step "score where there is truth"
for name in hc1_tetrode_dev mearec_tetrode6; do
    spikecrsae score "$day/sorted/$name" --truth "$SPIKECRSAE_DATA/$name.h5"
done
spikecrsae score "$day/sorted/synth_tetrode5" --truth "$SPIKECRSAE_DATA/synth_tetrode5.nwb" --exhaustive

step "Phy and NWB, opened by phylib, SpikeInterface and pynwb"
for folder in "$day"/sorted/*/; do "$PYTHON" "$here/lab_day.py" read "$folder"; done

step "the report in Chromium"
"$PYTHON" "$here/lab_day.py" browse "$day/sorted/mearec_tetrode6/report.html"

step "two units merged and one called noise, as Phy saves it; score and export of what was curated"
cp -r "$day/sorted/mearec_tetrode6/phy" "$day/curated"
"$PYTHON" "$here/lab_day.py" curate "$day/curated"
spikecrsae score "$day/curated" --truth "$SPIKECRSAE_DATA/mearec_tetrode6.h5" -o "$day/curated-score"
spikecrsae export "$day/curated" --to nwb --overwrite

step "compare with what it was"
spikecrsae compare "$day/sorted/mearec_tetrode6" "$day/curated"

step "rerun"
spikecrsae rerun "$day/sorted/synth_tetrode5/run.json" -o "$day/again" --overwrite
cmp "$day/sorted/synth_tetrode5/spikes.csv" "$day/again/spikes.csv"
echo "spikes.csv is identical"

step "done; the results are in $day"
